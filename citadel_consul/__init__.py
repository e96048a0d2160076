"""citadel_consul: a Consul-backed service orchestrator and service-discovery integration."""

__version__ = "0.1.0"
