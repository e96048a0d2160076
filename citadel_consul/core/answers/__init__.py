"""The answers that the API gives and the CLI prints: frozen dataclasses, and pure functions that make them.

Field names and nesting are a contract with the site; ``docs/api.md`` shows each. A number is real or None: what
cannot be known is never filled in. Times of day are UTC as RFC 3339 writes them, durations are seconds.
"""
