"""Who is notified, and how: the list ``notification.receivers`` of the configuration file.

A receiver is told apart by which of ``webhook``, ``webhook_file``, ``command`` or ``log`` it has. Secrets (a webhook's
URL, tokens, headers) are kept out of every representation, and best kept out of the file as well: what ends in
``_file`` is read each time that something is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from citadel_consul.config import values
from citadel_consul.config.addresses import check_webhook_url, is_loopback
from citadel_consul.config.suggestions import suggest
from citadel_consul.core import names
from citadel_consul.core.notice import Transition
from citadel_consul.errors import InvalidInput, Problem

MOST_RECEIVERS = 50
DEFAULT_TEMPLATE = "json"
WEBHOOK_SECONDS = 10.0
COMMAND_SECONDS = 30.0
_HEADER = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_KINDS = ("webhook", "webhook_file", "command", "log")
_COMMON = ("name", "when")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "webhook": ("template", "headers", "token_file", "timeout"),
    "webhook_file": ("template", "headers", "token_file", "timeout"),
    "command": ("timeout",),
    "log": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookReceiver:
    """Notices are posted to ``url``, or to what ``url_file`` holds, in the form of a template."""

    name: str
    when: frozenset[Transition]
    url: str | None = field(default=None, repr=False)
    url_file: Path | None = None
    template: str = DEFAULT_TEMPLATE
    headers: Mapping[str, str | Path] = field(default_factory=dict, repr=False)
    token_file: Path | None = None
    timeout_seconds: float = WEBHOOK_SECONDS

    def __str__(self) -> str:
        return f"{self.name} (webhook {'from a file' if self.url is None else place_of(self.url)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandReceiver:
    """A program is run for each notice, which it reads as JSON from its standard input."""

    name: str
    when: frozenset[Transition]
    command: tuple[str, ...] = field(repr=False)
    timeout_seconds: float = COMMAND_SECONDS

    def __str__(self) -> str:
        return f"{self.name} (command {self.command[0]})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReceiver:
    """Notices go into the orchestrator's own log."""

    name: str
    when: frozenset[Transition]

    def __str__(self) -> str:
        return f"{self.name} (log)"


Receiver = WebhookReceiver | CommandReceiver | LogReceiver
EVERY_TRANSITION = frozenset(Transition)


@dataclass(frozen=True, slots=True)
class Receivers:
    """All receivers, in the order of the file."""

    items: tuple[Receiver, ...] = ()

    def __str__(self) -> str:
        return ", ".join(str(item) for item in self.items) or "none"

    def anchored(self, folder: Path) -> Receivers:
        """With paths relative to ``folder``."""
        return Receivers(tuple(_anchored(item, folder) for item in self.items))


ONLY_THE_LOG = Receivers((LogReceiver(name="log", when=EVERY_TRANSITION),))


def place_of(url: str) -> str:
    """Scheme and host of a webhook: what can be said of it without giving its secret away."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/…"


def parse_receivers(value: object) -> Receivers:
    """Read the list. Raises InvalidInput whose places say where in the list: ``[1].webhook``."""
    if not isinstance(value, list):
        raise InvalidInput.at("", "is not a list", "write each receiver as `- name: …` with its fields below it")
    if len(value) > MOST_RECEIVERS:
        raise InvalidInput.at("", f"holds more than {MOST_RECEIVERS} receivers", "let one of them pass notices on")
    problems: list[Problem] = []
    found: list[Receiver] = []
    for position, item in enumerate(value):
        try:
            found.append(_receiver(item))
        except InvalidInput as error:
            problems += [replace(problem, place=f"[{position}]{problem.place}") for problem in error.problems]
    problems += _doubles(found)
    if problems:
        raise InvalidInput(problems)
    return Receivers(tuple(found))


def _receiver(item: object) -> Receiver:
    if not isinstance(item, dict):
        raise InvalidInput.at("", "is not a receiver", "write `name:` and one of webhook, webhook_file, command, log")
    fields = _Fields(item)
    kind = fields.kind()
    name = fields.required("name", values.name)
    when = fields.optional("when", _transitions, EVERY_TRANSITION)
    made: Receiver
    if kind == "command":
        made = CommandReceiver(
            name=name,
            when=when,
            command=fields.required("command", _command),
            timeout_seconds=fields.optional("timeout", values.duration(0.1, 600.0), COMMAND_SECONDS),
        )
    elif kind == "log":
        if fields.optional("log", values.boolean, True) is False:
            fields.problems.append(Problem(".log", "false says nothing", "write `log: true`, or remove the receiver"))
        made = LogReceiver(name=name, when=when)
    else:
        made = _webhook(fields, name, when)
    fields.raise_problems()
    return made


def _webhook(fields: _Fields, name: str, when: frozenset[Transition]) -> WebhookReceiver:
    made = WebhookReceiver(
        name=name,
        when=when,
        url=fields.optional("webhook", lambda value: check_webhook_url(values.text(value)), None),
        url_file=fields.optional("webhook_file", values.path, None),
        template=fields.optional("template", _template, DEFAULT_TEMPLATE),
        headers=fields.optional("headers", _headers, {}),
        token_file=fields.optional("token_file", values.path, None),
        timeout_seconds=fields.optional("timeout", values.duration(0.1, 120.0), WEBHOOK_SECONDS),
    )
    secret = made.token_file is not None or any(isinstance(header, Path) for header in made.headers.values())
    parts = urlsplit(made.url or "")
    if secret and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        message = "a token would cross the network in the clear"
        fields.problems.append(Problem(".webhook", message, "use https://"))
    if made.token_file is not None and any(header.lower() == "authorization" for header in made.headers):
        message = "token_file is sent as Authorization, and so is this header"
        fields.problems.append(Problem(".headers", message, "give one of them"))
    return made


class _Fields:
    """The fields of one receiver, read with every problem kept."""

    def __init__(self, item: Mapping[str, object]) -> None:
        self._item = item
        self.problems: list[Problem] = []

    def kind(self) -> str:
        """Which kind it is. Raises InvalidInput if that cannot be told; unknown fields are kept as problems."""
        kinds = [kind for kind in _KINDS if kind in self._item]
        if len(kinds) != 1:
            message = f"has {' and '.join(kinds)}" if kinds else "says not how to notify"
            raise InvalidInput.at("", message, f"give it one of {', '.join(_KINDS)}")
        known = (*_COMMON, kinds[0], *_FIELDS[kinds[0]])
        for key in self._item:
            if key not in known:
                self.problems.append(Problem(f".{key}", "unknown key", suggest(str(key), known, "known keys")))
        return kinds[0]

    def optional(self, name: str, parse: Callable[[object], Any], default: Any) -> Any:
        """The value of a field; the default in place of one that is wrong, which is reported in the end."""
        if name not in self._item:
            return default
        try:
            return parse(self._item[name])
        except InvalidInput as error:
            self.problems += [replace(problem, place=f".{name}{problem.place}") for problem in error.problems]
            return default

    def required(self, name: str, parse: Callable[[object], Any]) -> Any:
        """As :meth:`optional`, and it has to be there."""
        if name not in self._item:
            self.problems.append(Problem("", f"has no {name}", f"add `{name}:`"))
        return self.optional(name, parse, "")

    def raise_problems(self) -> None:
        if self.problems:
            raise InvalidInput(self.problems)


def _transitions(value: object) -> frozenset[Transition]:
    known = [str(transition) for transition in Transition]
    if not isinstance(value, list) or not value:
        raise InvalidInput.at("", "is not a list of what to notify of", f"list some of {', '.join(known)}")
    return frozenset(values.choice(Transition)(word) for word in value)


def _command(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidInput.at("", "is not a list of arguments", "write it like [/usr/local/bin/page, --team, data]")
    return tuple(values.text(argument) for argument in value)


def _template(value: object) -> str:
    name = values.text(value)
    if not names.is_label(name):
        raise InvalidInput.at("", f"{name!r} is not the name of a template", "name it without folder and ending")
    return name


def _headers(value: object) -> Mapping[str, str | Path]:
    if not isinstance(value, dict):
        raise InvalidInput.at("", "is not a mapping", "write it like {X-Team: data}")
    problems: list[Problem] = []
    found: dict[str, str | Path] = {}
    for name, header in value.items():
        try:
            found[_header_name(name)] = _header_value(header)
        except InvalidInput as error:
            problems += [replace(problem, place=f".{name}{problem.place}") for problem in error.problems]
    if problems:
        raise InvalidInput(problems)
    return found


def _header_name(value: object) -> str:
    name = values.text(value)
    if not set(name) <= _HEADER:
        raise InvalidInput.at("", f"{name!r} is not the name of a header", "use letters, digits and hyphens")
    return name


def _header_value(value: object) -> str | Path:
    if isinstance(value, dict):
        if set(value) != {"file"}:
            raise InvalidInput.at("", "is neither text nor a file", "write it like {file: /etc/citadel/key}")
        return values.path(value["file"])
    text = values.text(value)
    if not text.isascii():
        raise InvalidInput.at("", "holds characters beyond ASCII", "a header cannot carry them")
    return text


def _doubles(found: Iterable[Receiver]) -> Iterator[Problem]:
    seen: set[str] = set()
    for receiver in found:
        if receiver.name in seen:
            yield Problem("", f"two receivers are called {receiver.name!r}", "give each a name of its own")
        seen.add(receiver.name)


def _anchored(receiver: Receiver, folder: Path) -> Receiver:
    if not isinstance(receiver, WebhookReceiver):
        return receiver
    headers = {name: folder / v if isinstance(v, Path) else v for name, v in receiver.headers.items()}
    url_file = None if receiver.url_file is None else folder / receiver.url_file
    token_file = None if receiver.token_file is None else folder / receiver.token_file
    return replace(receiver, url_file=url_file, token_file=token_file, headers=headers)
