"""Backends: how an instance is started, watched and stopped on its node.

:mod:`~citadel_consul.backends.base` states the protocol. The node agent knows nothing else of what runs a service.
"""
