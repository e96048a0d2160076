"""The form of the stack file, as pydantic models; ``docs/stack-file.md`` explains every field.

The models hold what can be said of one field alone. They describe what is *written*, so that every field of a
service may be absent (it can come from ``defaults``); what a service needs in the end, and every rule between fields
or services, is in ``stackrules``. Defaults are those of ``core.model``, which a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field
from pydantic import Tag as UnionTag

from citadel_consul.config import fieldtypes as types
from citadel_consul.core.model import Condition, OnFailure, OnRecovery, Strength

LIST_FORM, MAPPING_FORM = "<list>", "<mapping>"
"""What pydantic puts into the location of an error to tell the two forms of ``depends_on`` apart."""

PROCESS, SYSTEMD, DOCKER, COMMAND = "<process>", "<systemd>", "<docker>", "<command>"
"""The same for the kinds of ``backend``."""

Lax = Field(strict=False)  # strict mode takes no text for an enum


class FileModel(BaseModel):
    """What all parts of the file share: nothing unknown, nothing converted silently.

    None says that a field is absent. The file itself cannot say it: keys without a value are reported earlier.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LogsModel(FileModel):
    """The rotated output files of an instance."""

    max_bytes: types.Size = Field(10 * 1024 * 1024, description="Size at which the output file is rotated.")
    files: int = Field(3, ge=1, le=100, description="Files kept, the current one included.")


class ProcessModel(FileModel):
    """A program that the node agent runs itself."""

    kind: Annotated[Literal["process"], types.BackendKind] = Field(
        "process", description="`process`: a program that the node agent runs itself."
    )
    command: Annotated[list[types.TemplatedText], types.ArgumentList] = Field(
        default_factory=list, min_length=1, description="Program and arguments; there is no shell. Required."
    )
    env: dict[types.EnvName, types.TemplatedText] = Field(
        default_factory=dict, description="Variables added to the environment."
    )
    cwd: types.Program | None = Field(
        None, description="Working folder, relative to the stack file; the node agent's choice if absent."
    )
    user: types.Line | None = Field(None, description="User to run as; the node agent's own if absent.")
    stop_signal: types.StopSignal = Field("SIGTERM", description="Asks the program to stop.")
    reload_signal: types.ReloadSignal | None = Field(None, description="Asks the program to reload; none if absent.")
    logs: LogsModel = Field(default_factory=LogsModel, description="Bounds of the output kept.")


class SystemdModel(FileModel):
    """A unit of systemd."""

    kind: Literal["systemd"] = Field("systemd", description="`systemd`: a unit of systemd.")
    unit: types.UnitName | None = Field(
        None, description="Whole name of the unit, like `redis-server.service` or `embedding@1.service`. Required."
    )
    bus: Literal["system", "user"] = Field(
        "system", description="`system`, or `user`: the service manager of the user that the node agent runs as."
    )
    restarts: Literal["citadel", "systemd"] = Field(
        "citadel", description="Who starts it again after it failed, if the unit has `Restart=`."
    )


class DockerModel(FileModel):
    """A container."""

    kind: Literal["docker"] = Field("docker", description="`docker`: a container.")
    container: types.ContainerName | None = Field(None, description="An existing container, by name.")
    file: types.Program | None = Field(
        None,
        description="A compose file, relative to the stack file; with `service`, in place of `container`.",
    )
    service: types.ComposeService | None = Field(None, description="The service of the compose file.")
    project: types.ComposeProject | None = Field(
        None, description="Compose's project; derived from the folder of the compose file, as compose does, if absent."
    )
    reload_signal: types.ReloadSignal | None = Field(
        None, description="Asks the main process of the container to reload; none if absent."
    )


class CommandModel(FileModel):
    """Anything that commands start, stop and look at."""

    kind: Literal["command"] = Field("command", description="`command`: commands start, stop and look at it.")
    start: types.Command | None = Field(None, description="Starts it, and ends. Required.")
    stop: types.Command | None = Field(None, description="Stops it, and ends. Required.")
    status: types.Command | None = Field(
        None, description="Ends with status 0 while it runs and with 3 when it does not. Required."
    )
    reload: types.Command | None = Field(None, description="Has it read its configuration again; none if absent.")
    env: dict[types.EnvName, types.TemplatedText] = Field(
        default_factory=dict, description="Variables added to the environment of the commands."
    )
    cwd: types.Program | None = Field(
        None, description="Working folder, relative to the stack file; the node agent's choice if absent."
    )
    user: types.Line | None = Field(None, description="User to run the commands as; the node agent's own if absent.")
    poll: types.PositiveDuration = Field(1.0, description="Time between two looks at its status.")
    timeout: types.PositiveDuration = Field(
        30.0, description="Longest run of a command; `stop` has the `stop_timeout` of the service."
    )


BACKENDS: Mapping[str, type[FileModel]] = {
    PROCESS: ProcessModel,
    SYSTEMD: SystemdModel,
    DOCKER: DockerModel,
    COMMAND: CommandModel,
}


def _kind(value: object) -> str:
    kind = value.get("kind", "process") if isinstance(value, dict) else getattr(value, "kind", "process")
    tag = f"<{kind}>"
    return tag if tag in BACKENDS else PROCESS  # whose own kind then says which there are


BackendModel = Annotated[
    Annotated[ProcessModel, UnionTag(PROCESS)]
    | Annotated[SystemdModel, UnionTag(SYSTEMD)]
    | Annotated[DockerModel, UnionTag(DOCKER)]
    | Annotated[CommandModel, UnionTag(COMMAND)],
    Discriminator(_kind),
]


class CheckModel(FileModel):
    """One health check: exactly one of http, tcp, grpc, ttl and script, and what goes with it."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [kind]} for kind in ("http", "tcp", "grpc", "ttl", "script")]}
    )

    http: types.HttpUrl | None = Field(None, description="URL that has to answer 2xx (429 is a warning).")
    tcp: types.TcpTarget | None = Field(None, description="`host:port` that has to accept a connection.")
    grpc: types.GrpcTarget | None = Field(
        None, description="`host:port` or `host:port/service` that has to answer SERVING."
    )
    ttl: types.CheckPeriod | None = Field(
        None, description="The service reports itself, at least this often, 1s or more."
    )
    script: Annotated[list[types.TemplatedText], types.ArgumentList, Field(min_length=1)] | None = Field(
        None, description="Program and arguments: status 0 passes, 1 warns, any other is critical."
    )
    name: types.Name | None = Field(
        None, description="Name, unique within the service. The kind of the check if absent."
    )
    interval: types.CheckPeriod | None = Field(
        None, description="Time between runs, 1s or more. The setting `health.check_interval` if absent. Not for ttl."
    )
    timeout: types.PositiveDuration | None = Field(
        None, description="Longest run, no longer than the interval. 5s, or a shorter interval, if absent. Not for ttl."
    )
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = Field(
        "GET", description="Method of the request. http only."
    )
    headers: dict[types.HeaderName, types.HeaderValues] = Field(
        default_factory=dict, description="Headers of the request, each a value or a list of values. http only."
    )
    tls_skip_verify: bool = Field(False, description="Accept any certificate. http only.")
    success_before_passing: int = Field(
        0, ge=0, le=1000, description="Successes in a row that turn it passing. Not for ttl."
    )
    failures_before_critical: int = Field(
        0, ge=0, le=1000, description="Failures in a row that turn it critical. Not for ttl."
    )


class EdgeModel(FileModel):
    """What a service needs of one dependency."""

    condition: Annotated[Condition, Lax] | None = Field(
        None,
        description="What it has to be before this service starts. `healthy`, or `completed` of a oneshot, if absent.",
    )
    strength: Annotated[Strength, Lax] = Field(Strength.HARD, description="How much this service needs it.")
    min_instances: Annotated[int, Field(ge=1)] | None = Field(
        None, description="How many of its instances have to meet the condition; all if absent."
    )
    on_recovery: Annotated[OnRecovery, Lax] = Field(
        OnRecovery.NOTIFY, description="What this service does after the dependency was recovered."
    )


class RecoveryModel(FileModel):
    """How failures are recovered."""

    enabled: bool | None = Field(None, description="The setting `recovery.enabled` if absent.")
    attempts: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="Attempts in one bout. The setting `recovery.attempts` if absent."
    )
    delay: types.PositiveDuration | None = Field(
        None,
        description="Longest delay before attempt 2, doubled for each later one. `recovery.delay` if absent.",
    )
    max_delay: types.PositiveDuration = Field(300.0, description="Where the doubling of the delay ends.")
    total: types.PositiveDuration = Field(1800.0, description="Longest bout.")
    reset_after: types.PositiveDuration = Field(600.0, description="Health for this long makes the budget whole again.")
    restart_degraded: bool = Field(False, description="Recover a service in warning too.")


def _form(value: object) -> str:
    return LIST_FORM if isinstance(value, list) else MAPPING_FORM


def _empty_edge(value: object) -> object:
    return {} if value is None else value


DependencyList = Annotated[list[types.Name], UnionTag(LIST_FORM)]
DependencyMapping = Annotated[
    dict[types.Name, Annotated[EdgeModel | None, BeforeValidator(_empty_edge)]], UnionTag(MAPPING_FORM)
]


class ServiceModel(FileModel):
    """One service."""

    type: types.TypeName | None = Field(
        None, description="What it is: chooses the registration template, and is shown. Required."
    )
    critical: bool = Field(True, description="Whether the stack is unhealthy without it.")
    nodes: Annotated[list[types.Name], Field(min_length=1)] | None = Field(
        None, description="Nodes with an instance of it, one each. Required."
    )
    endpoint: types.Endpoint | None = Field(
        None, description="`scheme://host:port` that clients use; Consul is given its host and port."
    )
    health_endpoint: types.HttpUrl | None = Field(
        None, description="URL shown to people. The target of the first http check if absent."
    )
    oneshot: bool = Field(False, description="Runs to its end (status 0) instead of staying up; has no checks.")
    backend: BackendModel | None = Field(None, description="What runs it. Required.")
    checks: list[CheckModel] = Field(default_factory=list, description="Its health checks.")
    tags: list[types.Tag] = Field(default_factory=list, description="Tags in Consul's catalog.")
    meta: dict[types.MetaKey, types.MetaValue] = Field(
        default_factory=dict, max_length=types.MAX_META_KEYS, description="Metadata in Consul's catalog."
    )
    metrics: dict[types.FigureName, types.FigurePath] = Field(
        default_factory=dict, description="Figures in the JSON of the health endpoint: name to dotted path."
    )
    depends_on: Annotated[DependencyList | DependencyMapping, Discriminator(_form)] = Field(
        default_factory=dict, description="A list of services, or a mapping of services to edges."
    )
    start_timeout: types.PositiveDuration | None = Field(
        None, description="Longest time from start to ready. The time-out of the operation if absent."
    )
    stop_timeout: types.PositiveDuration | None = Field(
        None, description="Time from the stop signal to SIGKILL. The time-out of the operation if absent."
    )
    drain_timeout: types.Duration | None = Field(
        None, description="Longest drain before every graceful stop; `0s`: never. Only when asked for, if absent."
    )
    on_failure: Annotated[OnFailure, Lax] = Field(
        OnFailure.CONTINUE, description="What a startup does when this service fails to start."
    )
    recovery: RecoveryModel = Field(default_factory=RecoveryModel, description="How failures are recovered.")
    template: types.TemplateFile | None = Field(
        None, description="Registration template, by file name. The one of its type if absent."
    )


class StackModel(FileModel):
    """The whole file."""

    version: Literal[1] = Field(description="Version of this form. Required.")
    stack: types.Name = Field(description="Name of the stack; its keys are under `citadel/<stack>/`. Required.")
    defaults: ServiceModel = Field(
        default_factory=ServiceModel, description="Values for every service that does not give its own."
    )
    services: dict[types.ServiceName, ServiceModel] = Field(min_length=1, description="The services by name. Required.")
