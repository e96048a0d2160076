"""Services in containers: single ones, and those of compose files."""
