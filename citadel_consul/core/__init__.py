"""The pure heart: words, graph, lifecycles and decisions. No I/O, no clock, no randomness, no third-party package."""
