"""What citadel says of itself: logs and metrics."""
