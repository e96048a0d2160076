"""The node agent: one on each node; it makes the instances of its node what the leader wants them to be."""
