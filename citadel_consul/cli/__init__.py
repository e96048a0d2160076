"""The command line. ``main`` is the entry; each command lives in a module of its own, imported when it is called."""
