"""The HTTP API: every endpoint of the site's first document, served by any orchestrator, leader or not."""
