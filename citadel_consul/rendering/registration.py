"""From a service definition as a Consul agent reads it from a file to the body of its HTTP API.

Consul spells the same fields twice: ``{"service": {"enable_tag_override": …}}`` in configuration files,
``{"EnableTagOverride": …}`` in ``PUT /v1/agent/service/register``. The tables below are the translation, for Consul
1.8 to 1.22; a field in none of them is an error, so that nothing a template says is lost without a word.
Namespaces, partitions and the mesh (``connect``, ``proxy``, ``kind``) are not among them: citadel does not use them.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from citadel_consul.errors import InvalidInput, Problem

_SERVICE_FIELDS = {
    "id": "ID",
    "name": "Name",
    "tags": "Tags",
    "address": "Address",
    "port": "Port",
    "meta": "Meta",
    "enable_tag_override": "EnableTagOverride",
}
_WEIGHT_FIELDS = {"passing": "Passing", "warning": "Warning"}
_ADDRESS_FIELDS = {"address": "Address", "port": "Port"}

# Each kind of check, by the field that makes a check one of that kind.
_KIND_FIELDS = {
    "http": "HTTP",
    "tcp": "TCP",
    "udp": "UDP",
    "grpc": "GRPC",
    "h2ping": "H2PING",
    "args": "Args",
    "ttl": "TTL",
    "os_service": "OSService",
    "alias_service": "AliasService",
    "alias_node": "AliasNode",
}
_WITHOUT_INTERVAL = frozenset({"ttl", "alias_service", "alias_node"})
_CHECK_FIELDS = {
    **_KIND_FIELDS,
    "id": "CheckID",
    "name": "Name",
    "notes": "Notes",
    "status": "Status",
    "method": "Method",
    "header": "Header",
    "body": "Body",
    "disable_redirects": "DisableRedirects",
    "grpc_use_tls": "GRPCUseTLS",
    "h2ping_use_tls": "H2PingUseTLS",
    "interval": "Interval",
    "timeout": "Timeout",
    "tls_server_name": "TLSServerName",
    "tls_skip_verify": "TLSSkipVerify",
    "docker_container_id": "DockerContainerID",
    "shell": "Shell",
    "output_max_size": "OutputMaxSize",
    "success_before_passing": "SuccessBeforePassing",
    "failures_before_warning": "FailuresBeforeWarning",
    "failures_before_critical": "FailuresBeforeCritical",
    "deregister_critical_service_after": "DeregisterCriticalServiceAfter",
}
_TOKEN_REMEDY = "citadel sends tokens as a header; drop it from the template"  # noqa: S105 - a sentence


def to_agent_api(definition: Mapping[str, object], status: str | None = None) -> dict[str, object]:
    """The body of ``PUT /v1/agent/service/register`` for a definition in configuration-file form.

    ``status`` ("passing", "warning" or "critical") becomes the initial status of every check; with None a check
    keeps what the definition says, and Consul starts it as critical if that is nothing. Raises InvalidInput for
    fields that are unknown, of the wrong type, or missing.
    """
    _only(definition, {"service"}, "definition")
    service = mapping(definition.get("service"), "service")
    body: dict[str, object] = {}
    for key, value in service.items():
        if key in _SERVICE_FIELDS:
            body[_SERVICE_FIELDS[key]] = value
        elif key == "weights":
            body["Weights"] = _translate(mapping(value, "service.weights"), _WEIGHT_FIELDS, "service.weights")
        elif key == "tagged_addresses":
            body["TaggedAddresses"] = _tagged_addresses(mapping(value, "service.tagged_addresses"))
        elif key not in {"check", "checks"}:
            remedy = _TOKEN_REMEDY if key == "token" else ""
            raise InvalidInput.at(f"service.{key}", "is not a field of a service that citadel can register", remedy)
    body["Checks"] = [_check(check, f"service.checks[{i}]", status) for i, check in enumerate(checks_of(service))]
    return body


def checks_of(service: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The checks of a definition's ``service``, be they under ``checks`` or the single ``check``."""
    checks = list(sequence(service.get("checks", ()), "service.checks"))
    if "check" in service:
        checks.insert(0, service["check"])
    return [mapping(check, f"service.checks[{index}]") for index, check in enumerate(checks)]


def _check(check: Mapping[str, object], place: str, status: str | None) -> dict[str, object]:
    if "token" in check:
        raise InvalidInput.at(f"{place}.token", "tokens do not belong into a definition", _TOKEN_REMEDY)
    body = _translate(check, _CHECK_FIELDS, place)
    kinds = [kind for kind in _KIND_FIELDS if kind in check]
    # An alias may name a service and the node that it is on: the one pair that is a single kind.
    if len(kinds) != 1 and kinds != ["alias_service", "alias_node"]:
        what = f"is {' and '.join(kinds)} at once" if kinds else "is of no kind"
        raise InvalidInput.at(place, f"the check {what}", f"give it exactly one of {', '.join(_KIND_FIELDS)}")
    if kinds[0] not in _WITHOUT_INTERVAL and not check.get("interval"):
        raise InvalidInput.at(place, f"a {kinds[0]} check needs an interval")
    if status is not None:
        body["Status"] = status
    return body


def _tagged_addresses(addresses: Mapping[str, object]) -> dict[str, object]:
    place = "service.tagged_addresses"
    return {
        tag: _translate(mapping(address, f"{place}.{tag}"), _ADDRESS_FIELDS, f"{place}.{tag}")
        for tag, address in addresses.items()
    }


def _translate(source: Mapping[str, object], fields: Mapping[str, str], place: str) -> dict[str, object]:
    _only(source, fields.keys(), place)
    return {fields[key]: value for key, value in source.items()}


def _only(source: Mapping[str, object], known: Container[str], place: str) -> None:
    unknown = sorted(key for key in source if key not in known)
    if unknown:
        raise InvalidInput([Problem(f"{place}.{key}", "is not a field that citadel can register") for key in unknown])


def mapping(value: object, place: str) -> Mapping[str, object]:
    """``value`` as a JSON object, or InvalidInput at ``place``."""
    if isinstance(value, dict):
        return value
    raise InvalidInput.at(place, "must be an object")


def sequence(value: object, place: str) -> Sequence[object]:
    """``value`` as a JSON array, or InvalidInput at ``place``."""
    if isinstance(value, list | tuple):
        return value
    raise InvalidInput.at(place, "must be an array")
