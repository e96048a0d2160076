"""Examining an installation: Consul, the token, the stack, what is registered here, how it is checked, and DNS."""
