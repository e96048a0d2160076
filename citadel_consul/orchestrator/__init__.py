"""The orchestrator: several run, one leads; the leader observes, decides and acts through Consul alone."""
