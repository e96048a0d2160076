"""How an instance and its checks are named in Consul, and the metadata that marks them as citadel's."""

from __future__ import annotations

from collections.abc import Mapping

from citadel_consul.core.model import ServiceSpec
from citadel_consul.rendering.scope import NodeContext

# Consul's UI shows an icon only for sources that it knows; any other value is plain metadata, and newer versions
# let an operator filter services by it.
SOURCE_KEY = "external-source"
SOURCE = "citadel"
RESERVED_PREFIX = "citadel-"


def service_id(stack: str, service: str, node: str) -> str:
    """Consul's id of an instance. Dots cannot occur in the parts (DNS labels), so the id can be taken apart again."""
    return f"{stack}.{service}.{node}"


def check_id(instance_id: str, check: str) -> str:
    """Consul's id of the check named ``check``. Check ids are unique per Consul agent, hence the instance in front."""
    return f"{instance_id}:{check}"


def standing_meta(spec: ServiceSpec, context: NodeContext, scheme: str | None) -> Mapping[str, str]:
    """The metadata of every instance, by which citadel knows its own registrations and clients find the scheme.

    The endpoint itself is left out on purpose: it may carry credentials, and the catalog is readable by many.
    """
    meta = {
        f"{RESERVED_PREFIX}stack": context.stack,
        f"{RESERVED_PREFIX}node": context.name,
        f"{RESERVED_PREFIX}type": spec.type,
        f"{RESERVED_PREFIX}critical": "true" if spec.critical else "false",
        SOURCE_KEY: SOURCE,
    }
    if scheme:
        meta[f"{RESERVED_PREFIX}scheme"] = scheme
    return meta


def is_reserved(key: str) -> bool:
    """Whether a metadata key is citadel's to set."""
    return key.startswith(RESERVED_PREFIX) or key == SOURCE_KEY
