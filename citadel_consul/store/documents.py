"""The documents in the KV store: JSON on one side, the dataclasses of core on the other.

Every value carries ``"v": 1``. Fields that hold their default are left out, so that values stay short and readable
in the Consul UI. Reading is strict where people write (edges, specs, holds): a misspelt field is a fault, not a
silent default. It is lenient where citadel writes, so that an older reader can live with a newer writer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from citadel_consul.core.incident import Incident
from citadel_consul.core.lifecycle import Desired, Observed
from citadel_consul.core.measurement import NodeMeasurements
from citadel_consul.core.model import (
    BACKEND_KINDS,
    CommandBackend,
    DockerBackend,
    Edge,
    ProcessBackend,
    ServiceSpec,
    SystemdBackend,
)
from citadel_consul.core.operation import Operation, Step
from citadel_consul.core.snapshot import Hold
from citadel_consul.core.stats import ServiceStats

VERSION = 1
T = TypeVar("T")


class UndecodableError(Exception):
    """A value that is not what its key says. The text is for people."""


@dataclass(frozen=True, slots=True)
class LeaderRecord:
    """Who leads: written under the leader lock. ``since`` is unix seconds, ``api`` is ``host:port``."""

    id: str
    node: str
    api: str
    since: float
    version: str = ""


@dataclass(frozen=True, slots=True)
class HandoverRequest:
    """A request that the leadership of ``epoch`` end, in favour of ``to`` (a node, an orchestrator; empty: any)."""

    epoch: int
    to: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """The node agent of a node: written under its own lock. ``home`` is its host and state folder.

    ``lets_go``: it knows the order to release an instance; one that does not would stop it. ``signals``: it knows how
    to signal a report (see :class:`NodeObserved`), and ``reports`` counts those that it has signalled.
    """

    id: str
    node: str
    consul_node: str
    address: str
    since: float
    version: str = ""
    api: str = ""
    home: str = ""
    lets_go: bool = False
    signals: bool = False
    reports: int = 0


@dataclass(frozen=True, slots=True)
class NodeDesired:
    """What is wanted of all instances of a node, and by which leadership."""

    epoch: int
    instances: Mapping[str, Desired] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeObserved:
    """What a node agent last saw, and the highest epoch whose orders it has obeyed.

    ``signals``: with each report the agent rewrites the key of its lock, which tells the leader whose report to read.
    """

    epoch: int
    instances: Mapping[str, Observed] = field(default_factory=dict)
    signals: bool = False


@dataclass(frozen=True, slots=True)
class StepChunk:
    """A slice of the steps of an operation: short enough for one value, few enough for one transaction."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A request to cancel an operation."""

    by: str
    at: float


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: when (unix seconds), what, to whom, who says so."""

    id: str
    at: float
    kind: str
    message: str
    by: str
    epoch: int | None = None
    service: str | None = None
    node: str | None = None
    operation: str | None = None


class Document(Generic[T]):
    """How one kind of value is written and read. ``strict`` refuses unknown fields."""

    def __init__(self, kind: type[T], *, strict: bool = False, from_key: tuple[str, ...] = ()) -> None:
        self._kind = kind
        self._strict = strict
        self._from_key = from_key
        self._fields = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]

    @property
    def _adapter(self) -> TypeAdapter[T]:
        adapter: TypeAdapter[T] = _adapter(self._kind)  # type: ignore[arg-type]
        return adapter

    def encode(self, value: T, *, leave_out: frozenset[str] = frozenset()) -> bytes:
        """The JSON of ``value``, without fields that hold their default or that the key says."""
        left_out = {*self._from_key, *leave_out}
        data = self._dumped(value, left_out)
        return orjson.dumps({"v": VERSION, **data})

    def decode(self, raw: bytes, **from_key: str) -> T:
        """The value that ``raw`` holds; raises :class:`UndecodableError` with a text for people."""
        try:
            data = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise UndecodableError(f"is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise UndecodableError(f"is a JSON {type(data).__name__}, not an object")
        version = data.pop("v", VERSION)
        if version != VERSION:
            raise UndecodableError(f"has version {version!r}; this citadel reads version {VERSION}")
        unknown = sorted(set(data) - self._fields) if self._strict else []
        if unknown:
            raise UndecodableError(f"has an unknown field {unknown[0]!r}; known are {', '.join(sorted(self._fields))}")
        try:
            return self._adapter.validate_python({**self._readable(data), **from_key})
        except ValidationError as error:
            raise UndecodableError(_first_problem(error)) from error

    def _dumped(self, value: T, left_out: set[str]) -> dict[str, Any]:
        """``value`` as plain data, without fields that hold their default."""
        data: dict[str, Any] = self._adapter.dump_python(value, mode="json", exclude_defaults=True, exclude=left_out)
        return data

    def _readable(self, data: dict[str, Any]) -> dict[str, Any]:
        """``data`` as its type can be made of it. Raises :class:`UndecodableError`."""
        return data


class SpecDocument(Document[ServiceSpec]):
    """Specs, whose backend is of the type that its ``kind`` says: ``process`` if it says none."""

    def _dumped(self, value: ServiceSpec, left_out: set[str]) -> dict[str, Any]:
        data, kind = super()._dumped(value, left_out), value.backend.kind
        return data if kind == "process" else {**data, "backend": {"kind": kind, **data["backend"]}}

    def _readable(self, data: dict[str, Any]) -> dict[str, Any]:
        backend = data.get("backend")
        if not isinstance(backend, dict):
            return data
        kind = backend.get("kind", "process")
        if kind not in BACKEND_KINDS:
            raise UndecodableError(f"backend.kind: {kind!r} is not one of {', '.join(BACKEND_KINDS)}")
        try:
            return {**data, "backend": _adapter(_BACKENDS[kind]).validate_python(backend)}
        except ValidationError as error:
            raise UndecodableError(f"backend.{_first_problem(error)}") from error


_BACKENDS: Mapping[str, type] = {
    "process": ProcessBackend,
    "systemd": SystemdBackend,
    "docker": DockerBackend,
    "command": CommandBackend,
}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Built once a kind and when first used: building one takes milliseconds."""
    return TypeAdapter(kind)


def _first_problem(error: ValidationError) -> str:
    first: Mapping[str, Any] = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


SPEC = SpecDocument(ServiceSpec, strict=True)
EDGE = Document(Edge, strict=True, from_key=("service", "dependency"))
HOLD = Document(Hold, strict=True, from_key=("scope", "name"))
LEADER = Document(LeaderRecord)
HANDOVER = Document(HandoverRequest)
AGENT = Document(AgentRecord)
DESIRED = Document(NodeDesired)
OBSERVED = Document(NodeObserved)
OPERATION = Document(Operation)
STEPS = Document(StepChunk)
CANCELLATION = Document(Cancellation)
INCIDENT = Document(Incident, from_key=("service",))
STATS = Document(ServiceStats, from_key=("service",))
MEASUREMENTS = Document(NodeMeasurements)
EVENT = Document(Event, from_key=("id",))

OPERATION_HEAD = frozenset({"steps"})
"""What the head of an operation leaves to the step chunks."""


def encode_operation(operation: Operation) -> bytes:
    """The head of an operation; its steps are in chunks of their own."""
    return OPERATION.encode(operation, leave_out=OPERATION_HEAD)


def encode_measurements(measured: NodeMeasurements) -> bytes:
    """What a node agent has measured, for its own HTTP endpoint: read by people too, so nothing is left out."""
    return orjson.dumps(
        {"v": VERSION, **{f.name: getattr(measured, f.name) for f in dataclasses.fields(measured)}},
        option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
    )
