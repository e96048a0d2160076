"""Telling people: from a notice to a webhook's body, a command's input or a line in the log, and its delivery."""
