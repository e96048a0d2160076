"""Names of stacks, services and nodes.

A name becomes a KV key, a Consul service name, a DNS label, a file name and a unit name, so it has to suit the
strictest of them: a DNS label as Consul answers for it (RFC 1123: letters, digits and inner hyphens, at most 63
characters), in lower case because Consul's DNS ignores case while its KV store does not.
"""

from __future__ import annotations

import re

MAX_LABEL = 63
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")

RULE = "lower-case letters, digits and inner hyphens, at most 63 characters (a DNS label)"


def is_label(name: str) -> bool:
    """Whether ``name`` can be used everywhere a name of citadel is used."""
    return len(name) <= MAX_LABEL and _LABEL.fullmatch(name) is not None
