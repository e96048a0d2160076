"""Installing citadel's processes on a machine, and taking them off it again without a trace."""
