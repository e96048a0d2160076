"""The systemd backend: units over D-Bus."""
