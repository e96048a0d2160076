"""The types of single fields of the stack file, for pydantic.

Each is a parser that raises InvalidInput, wrapped so that pydantic collects its message and remedy with all others.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from citadel_consul.config import durations, sizes
from citadel_consul.config.addresses import check_grpc_target, check_http_url, parse_endpoint, parse_host_port
from citadel_consul.config.suggestions import suggest
from citadel_consul.config.templating import check_template, is_template
from citadel_consul.config.yamltree import WrittenFloat, WrittenInt
from citadel_consul.core import figures, names
from citadel_consul.core.model import BACKEND_KINDS
from citadel_consul.errors import InvalidInput

T = TypeVar("T")
V = TypeVar("V")

NAME_PATTERN = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_TYPE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_META_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FIGURE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FIGURE_PATH = re.compile(r"[^.\s]+(\.[^.\s]+){0,15}")
_UNIT = re.compile(r"(?=.{1,255}\Z)[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\@-]+)?\.service")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,254}")
_TEMPLATE_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SIGNALS = tuple(sorted(member.name for member in signal.Signals))
MAX_META_BYTES = 512  # Consul's limit
MAX_META_KEYS = 58  # Consul's 64, less the six that citadel sets itself


def collected(parse: Callable[[V], T]) -> Callable[[V], T]:
    """``parse`` with its InvalidInput turned into the kind of error that pydantic collects."""

    def validate(value: V) -> T:
        try:
            return parse(value)
        except InvalidInput as error:
            problem = error.problems[0]
            # The texts go in as context: as a template, pydantic would take their braces for placeholders.
            context = {"message": problem.message, "remedy": problem.remedy}
            raise PydanticCustomError("citadel", "{message}", context) from error

    return validate


def _matching(pattern: re.Pattern[str], what: str, rule: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise InvalidInput.at("", f"{text!r} is not {what}", f"use {rule}")
        return text

    return check


def _name(text: str) -> str:
    if not names.is_label(text):
        raise InvalidInput.at("", f"{text!r} is not a valid name", f"use {names.RULE}")
    return text


def _service_name(text: str) -> str:
    if text == "consul":
        raise InvalidInput.at("", "'consul' is the name of Consul's own service", "choose another name")
    return _name(text)


def _text(value: object) -> object:
    """Numbers as they were written, where text is wanted: ``--port: 6333``, ``MODE: 0640``."""
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.text
    if isinstance(value, bool):
        word = str(value).lower()
        raise InvalidInput.at("", f"{word} is not text", f'quote it: "{word}"')
    return value


def _no_control(text: str) -> str:
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise InvalidInput.at("", "holds a control character (a line break?)", "write it on one line")
    return text


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise InvalidInput.at("", "holds a NUL character", "remove it")
    return text


def _not_empty(text: str) -> str:
    if not text.strip():
        raise InvalidInput.at("", "is empty", "give it a value, or remove the key")
    return text


def _command(value: object) -> object:
    if isinstance(value, str):
        words = value.split()
        remedy = f"there is no shell: write a list, like [{', '.join(words)}]" if words else "write a list"
        raise InvalidInput.at("", "is text, not a list of arguments", remedy)
    return value


def _literal(check: Callable[[str], object]) -> Callable[[str], str]:
    """``check`` for text without templates; for a template, whether it can be rendered."""

    def checked(text: str) -> str:
        if is_template(text):
            return check_template(text)
        check(text)
        return text

    return checked


def _signal(text: str) -> str:
    if text not in _SIGNALS:
        remedy = f"did you mean SIG{text.upper()}?" if f"SIG{text.upper()}" in _SIGNALS else suggest(text, _SIGNALS)
        raise InvalidInput.at("", f"{text!r} is not the name of a signal", remedy)
    return text


def _stop_signal(text: str) -> str:
    if text in {"SIGSTOP", "SIGCONT"}:
        raise InvalidInput.at("", f"{text} ends no process", "use SIGTERM, SIGINT or SIGQUIT")
    return _signal(text)


def _reload_signal(text: str) -> str:
    if text in {"SIGKILL", "SIGSTOP"}:
        raise InvalidInput.at("", f"no process can handle {text}", "use SIGHUP or SIGUSR1")
    return _signal(text)


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise InvalidInput.at("", "has to be longer than 0s", durations.REMEDY)
    return seconds


def _second_or_more(seconds: float) -> float:
    if seconds < 1:
        message = f"{durations.format_duration(seconds)} is shorter than Consul's minimum of 1s"
        raise InvalidInput.at("", message, "use 1s or more")
    return seconds


def _size(value: object) -> int:
    size = sizes.parse_size(value)
    if size < 4096:
        raise InvalidInput.at("", f"{size} bytes is too small", "use 4KiB or more")
    return size


def _meta_key(text: str) -> str:
    if text.startswith("consul-"):
        raise InvalidInput.at("", "keys that start with consul- belong to Consul", "choose another key")
    if text.startswith("citadel-") or text == "external-source":
        raise InvalidInput.at("", f"{text!r} is for citadel to set", "choose another key")
    return _matching(_META_KEY, "a valid meta key", "letters, digits, _ and -, at most 128 characters")(text)


def _meta_value(text: str) -> str:
    if len(text.encode()) > MAX_META_BYTES:
        message = f"longer than Consul's limit of {MAX_META_BYTES} bytes"
        raise InvalidInput.at("", message, "shorten it")
    return text


def _backend_kind(value: object) -> object:
    if isinstance(value, str) and value not in BACKEND_KINDS:
        message = f"{value!r} is not one of {', '.join(BACKEND_KINDS)}"
        raise InvalidInput.at("", message, suggest(value, BACKEND_KINDS, "choose one of them"))
    return value


def _unit(text: str) -> str:
    kind = text.rpartition(".")[2] if "." in text else ""
    if kind in {"socket", "timer", "target", "mount", "path", "slice", "scope", "device", "swap", "automount"}:
        raise InvalidInput.at("", f"{text!r} is a {kind}, which has no process to look after", "name its service")
    if kind != "service":
        raise InvalidInput.at("", f"{text!r} is not the whole name of a unit", f"write {text}.service")
    if text.removesuffix(".service").endswith("@"):
        remedy = f"write {text.replace('@', '@1')}, for instance"
        raise InvalidInput.at("", f"{text!r} is a template without an instance", remedy)
    return _matching(_UNIT, "a valid name of a unit", "letters, digits and :-_.\\@, at most 255 characters")(text)


def _container(what: str) -> Callable[[str], str]:
    return _matching(_CONTAINER, f"a valid name of a {what}", "letters, digits and _.-, a letter or digit first")


def _project(text: str) -> str:
    return _matching(_PROJECT, "a valid name of a project", "lower-case letters, digits, _ and -")(text)


def _figure_name(text: str) -> str:
    if text in figures.RESERVED:
        raise InvalidInput.at("", f"{text!r} is what citadel itself says of a service", "choose another name")
    return _matching(
        _FIGURE_NAME, "a valid name of a figure", "lower-case letters, digits and _, like gpu_utilization"
    )(text)


_DURATION_SCHEMA = {"anyOf": [{"type": "string", "pattern": durations.PATTERN}, {"type": "number", "minimum": 0}]}
_SIZE_SCHEMA = {"anyOf": [{"type": "string", "pattern": sizes.PATTERN}, {"type": "integer", "minimum": 4096}]}
_NAME_SCHEMA = WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})
_SIGNAL_SCHEMA = WithJsonSchema({"type": "string", "enum": list(_SIGNALS)})

Name = Annotated[str, AfterValidator(collected(_name)), _NAME_SCHEMA]
ServiceName = Annotated[str, AfterValidator(collected(_service_name)), _NAME_SCHEMA]
TypeName = Annotated[
    str,
    AfterValidator(collected(_matching(_TYPE, "a valid type", "lower-case letters, digits, _ and -"))),
    WithJsonSchema({"type": "string", "pattern": f"^{_TYPE.pattern}$"}),
]
Text = Annotated[
    str,
    BeforeValidator(collected(_text)),
    AfterValidator(collected(_no_nul)),
    WithJsonSchema({"type": ["string", "number"]}),
]
TemplatedText = Annotated[Text, AfterValidator(collected(check_template))]
Program = Annotated[TemplatedText, AfterValidator(collected(_not_empty))]
ArgumentList = BeforeValidator(collected(_command))
Command = Annotated[list[TemplatedText], ArgumentList, Field(min_length=1)]
BackendKind = BeforeValidator(collected(_backend_kind))
UnitName = Annotated[Text, AfterValidator(collected(_literal(_unit)))]
ContainerName = Annotated[Text, AfterValidator(collected(_literal(_container("container"))))]
ComposeService = Annotated[Text, AfterValidator(collected(_literal(_container("service"))))]
ComposeProject = Annotated[Text, AfterValidator(collected(_literal(_project)))]
Line = Annotated[Text, AfterValidator(collected(_no_control)), AfterValidator(collected(_not_empty))]
Tag = Annotated[Line, AfterValidator(collected(check_template))]
HeaderValues = Annotated[
    list[Tag],
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    WithJsonSchema({"type": ["string", "number", "array"], "items": {"type": ["string", "number"]}}),
]
Duration = Annotated[
    float, BeforeValidator(collected(durations.parse_duration)), WithJsonSchema(_DURATION_SCHEMA), Field(strict=False)
]
PositiveDuration = Annotated[Duration, AfterValidator(collected(_positive))]
CheckPeriod = Annotated[Duration, AfterValidator(collected(_second_or_more))]
Size = Annotated[int, BeforeValidator(collected(_size)), WithJsonSchema(_SIZE_SCHEMA)]
StopSignal = Annotated[str, AfterValidator(collected(_stop_signal)), _SIGNAL_SCHEMA]
ReloadSignal = Annotated[str, AfterValidator(collected(_reload_signal)), _SIGNAL_SCHEMA]
Endpoint = Annotated[str, AfterValidator(collected(_literal(parse_endpoint)))]
HttpUrl = Annotated[str, AfterValidator(collected(_literal(check_http_url)))]
TcpTarget = Annotated[str, AfterValidator(collected(_literal(parse_host_port)))]
GrpcTarget = Annotated[str, AfterValidator(collected(_literal(check_grpc_target)))]
HeaderName = Annotated[
    str,
    AfterValidator(collected(_matching(_HEADER, "a valid header name", "a token of RFC 9110, like X-Request-Id"))),
    WithJsonSchema({"type": "string", "pattern": f"^{_HEADER.pattern}$"}),
]
EnvName = Annotated[
    str,
    AfterValidator(collected(_matching(_ENV_KEY, "a valid variable name", "letters, digits and _, no digit first"))),
    WithJsonSchema({"type": "string", "pattern": f"^{_ENV_KEY.pattern}$"}),
]
MetaKey = Annotated[
    str,
    AfterValidator(collected(_meta_key)),
    WithJsonSchema({"type": "string", "pattern": f"^(?!consul-|citadel-|external-source$){_META_KEY.pattern}$"}),
]
MetaValue = Annotated[TemplatedText, AfterValidator(collected(_meta_value))]
FigureName = Annotated[
    str,
    AfterValidator(collected(_figure_name)),
    WithJsonSchema({"type": "string", "pattern": f"^{_FIGURE_NAME.pattern}$"}),
]
FigurePath = Annotated[
    str,
    AfterValidator(collected(_matching(_FIGURE_PATH, "a path", "names joined by dots, like gpu.utilization"))),
    WithJsonSchema({"type": "string", "pattern": f"^{_FIGURE_PATH.pattern}$"}),
]
TemplateFile = Annotated[
    str,
    AfterValidator(collected(_matching(_TEMPLATE_FILE, "the name of a template", "a file name without folders"))),
]
