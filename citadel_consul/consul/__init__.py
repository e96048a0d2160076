"""Everything that speaks to Consul: its HTTP API, its binary, a Consul of our own."""
