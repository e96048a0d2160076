"""Configuration: the stack file, and the settings of citadel's own processes."""
