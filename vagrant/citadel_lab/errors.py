"""What the lab reports instead of a traceback."""


class LabError(Exception):
    """The lab cannot do what was asked; the message says why and, where one exists, the remedy."""


class UsageError(LabError):
    """The request itself is wrong: an unknown node, a fault that makes no sense."""
