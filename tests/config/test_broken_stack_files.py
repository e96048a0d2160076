"""Broken stack files: each with the line, the field, the message and the remedy that its author gets to see."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from citadel_consul.config.stackfile import parse_stack
from citadel_consul.errors import InvalidInput, Problem

# Seven lines to which nothing is wrong; what a case adds to `api` starts on line 8.
GOOD = """\
version: 1
stack: shop
defaults: {nodes: [n1], backend: {command: [serve]}}
services:
  redis: {type: cache}
  api:
    type: gateway
"""


class Broken(NamedTuple):
    """A file with one problem, and what is said of it: the start of the place, parts of message and remedy."""

    name: str
    text: str
    place: str
    message: str
    remedy: str


def top(name: str, text: str, place: str, message: str, remedy: str) -> Broken:
    """A file given in full."""
    return Broken(name, text, f"shop.yaml:{place}", message, remedy)


def api(name: str, added: str, path: str, message: str, remedy: str) -> Broken:
    """The good file with one more line in its service ``api``, and the path of the problem within that service."""
    return top(name, f"{GOOD}    {added}\n", f"8: services.api.{path}", message, remedy)


def backend(name: str, added: str, path: str, message: str, remedy: str) -> Broken:
    """The good file with a line in the backend of ``api``."""
    text = f"{GOOD}    backend:\n      {added}\n"
    return top(f"backend: {name}", text, f"9: services.api.backend.{path}", message, remedy)


def check(name: str, check: str, path: str, message: str, remedy: str) -> Broken:
    """The good file with a check of ``api``."""
    text = f"{GOOD}    checks:\n      - {check}\n"
    return top(f"check: {name}", text, f"9: services.api.checks[0]{path}", message, remedy)


def edge(name: str, written: str, path: str, message: str, remedy: str) -> Broken:
    """The good file with dependencies of ``api``."""
    return top(
        f"edge: {name}", f"{GOOD}    depends_on: {written}\n", f"8: services.api.depends_on{path}", message, remedy
    )


DURATION = "write it like 250ms, 30s, 5m or 1h30m; a plain number means seconds"
HOST_PORT = "write it as host:port, like 127.0.0.1:6333 or [::1]:6333"
HTTP_URL = "write it as http://host:port/path or https://host:port/path"
ENDPOINT = "write it as scheme://host:port, like http://127.0.0.1:6333"
NAME = "use lower-case letters, digits and inner hyphens, at most 63 characters (a DNS label)"


def other(name: str, value: str, path: str, message: str, remedy: str) -> Broken:
    """A file with one service that has a backend of another kind."""
    text = f"version: 1\nstack: s\nservices:\n  a: {{type: t, nodes: [n], backend: {value}}}\n"
    return top(f"backend: {name}", text, f"4: services.a.backend{path}", message, remedy)


SERVICE = "type: t, nodes: [n1], backend: {command: [x]}"

NOT_YAML = [
    top("a list", "- a\n", "1", "the file has to hold a mapping", "start it with `key: value` lines"),
    top("a bracket left open", "version: [1\nstack: s\n", "2", "not valid YAML: while parsing a flow sequence", ""),
    top("a tab", "version: 1\nservices:\n\ta: b\n", "3", "not valid YAML", "indent with spaces, not tabs"),
    top("a control character", "version: 1\nstack: \x07\n", "2", "the character U+0007 is not allowed", "remove it"),
    top("two documents", GOOD + "---\na: 1\n", "8", "a second YAML document", "keep one document a file"),
    top(
        "a key given twice", GOOD + "version: 1\n", "8: version", "given twice, first on line 1", "keep one of the two"
    ),
    top(
        "a service given twice",
        GOOD + "  redis: {}\n",
        "8: services.redis",
        "given twice, first on line 5",
        "keep one of the two",
    ),
    api("an unknown alias", "tags: *all", "tags", "*all refers to no anchor above it", "define it before, with &all"),
    api("a tag of Python", "meta: !!python/dict {}", "meta", "!!python/dict is not allowed", "remove the tag"),
    api("a tag that does not fit", "critical: !!bool maybe", "critical", "the tag !!bool is not", "remove the tag"),
    top("a key that is a list", GOOD + "    [a]: b\n", "8: services.api", "a key has to be text", "use a plain word"),
    top(
        "a merge of no mapping", GOOD + "    <<: 5\n", '8: services.api["<<"]', "<< merges mappings", "give it an alias"
    ),
    top("bottomless nesting", "a: " + "[" * 200, "1", "nested more than 40 levels deep", "make it flatter"),
    top(
        "aliases that explode",
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)),
        "5",
        "more than 500000 values, aliases followed",
        "split the file",
    ),
]

FILE_LEVEL = [
    top("no version", GOOD.replace("version: 1\n", "x-a: 1\n"), "1: version", "is missing", "add"),
    top("another version", GOOD.replace("1\n", "2\n", 1), "1: version", "2 is not 1", "write 1"),
    top("no stack", GOOD.replace("stack: shop\n", ""), "1: stack", "is missing", "add `stack: …`"),
    top("a bad stack name", GOOD.replace("shop", "Shop_1"), "2: stack", "'Shop_1' is not", NAME),
    top("no services", "version: 1\nstack: s\nservices: {}\n", "3: services", "is empty", "give it at least one entry"),
    top("services without a value", "version: 1\nstack: s\nservices:\n", "3: services", "has no value", "give it one"),
    top("an unknown key", GOOD + "service: {}\n", "8: service", "unknown key", "did you mean services?"),
    top("a bad service name", GOOD + f"  My_api: {{{SERVICE}}}\n", "8: services.My_api", "is not", NAME),
    top(
        "the name of Consul's service",
        GOOD + f"  consul: {{{SERVICE}}}\n",
        "8: services.consul",
        "'consul' is the name of Consul's own service",
        "choose another name",
    ),
    top("an empty service", GOOD + "  db:\n", "8: services.db", "has no value", "give it one"),
    top("a service that is text", GOOD + "  db: x\n", "8: services.db", "'x' is not a mapping", ""),
    top(
        "a name in the defaults",
        GOOD.replace("{nodes", "{name: x, nodes"),
        "3: defaults.name",
        "unknown key",
        "known keys: type, critical,",
    ),
    top(
        "no nodes",
        "version: 1\nstack: s\nservices:\n  a: {type: t, backend: {command: [x]}}\n",
        "4: services.a.nodes",
        "is missing, here and in the defaults",
        "add `nodes: [node-1]`",
    ),
    top(
        "no type",
        GOOD.replace("    type: gateway\n", "    nodes: [n1]\n"),
        "6: services.api.type",
        "is missing, here and in the defaults",
        "add `type: database`",
    ),
    top(
        "no backend",
        "version: 1\nstack: s\nservices:\n  a: {type: t, nodes: [n]}\n",
        "4: services.a.backend",
        "is missing, here and in the defaults",
        "add `backend: {command: [program]}`",
    ),
    top(
        "no command",
        "version: 1\nstack: s\nservices:\n  a: {type: t, nodes: [n], backend: {user: x}}\n",
        "4: services.a.backend.command",
        "is missing: nothing to run",
        "add `command: [program]`",
    ),
]

FIELDS = [
    api("a number for a word", "template: 5", "template", "5 is not text", 'quote it: "5"'),
    api("true for a word", "endpoint: true", "endpoint", "true is not text", 'quote it: "true"'),
    api("a list for a flag", "oneshot: [a]", "oneshot", "a list is not true or false", ""),
    api("a fraction for a count", "recovery: {attempts: 1.5}", "recovery.attempts", "1.5 is not a whole number", ""),
    api(
        "too many attempts", "recovery: {attempts: 5000}", "recovery.attempts", "5000 is too large", "use 1000 or less"
    ),
    api("a line break", 'tags: ["a\\nb"]', "tags[0]", "holds a control character", "write it on one line"),
    api("an empty tag", 'tags: [" "]', "tags[0]", "is empty", "give it a value, or remove the key"),
    api("a NUL", 'meta: {a: "x\\0"}', "meta.a", "holds a NUL character", "remove it"),
    api("a long value", f"meta: {{a: {'é' * 257}}}", "meta.a", "longer than Consul's limit of 512 bytes", "shorten it"),
    api("a deep template", f'tags: ["{{{{{"(" * 3000}"]', "tags[0]", "a template nested too deeply", "simplify it"),
    api("a broken IPv6 address", "endpoint: 'http://[::1:80'", "endpoint", "is not a URL", ENDPOINT),
    api("a field misspelt", "start_timout: 5s", "start_timout", "unknown key", "did you mean start_timeout?"),
    api("a field without a value", "tags:", "tags", "has no value", "give it one, or remove the key"),
    api("yes for true", "critical: yes", "critical", "'yes' is not true or false", "write true, without quotes"),
    api("text for a list", "tags: blue", "tags", "'blue' is not a list", "write [blue]"),
    api("a node as text", "nodes: n1", "nodes", "'n1' is not a list", "write [n1]"),
    api("no node", "nodes: []", "nodes", "is empty", "give it at least one entry"),
    api("a node twice", "nodes: [n1, n2, n1]", "nodes[2]", "'n1' is given twice", "remove one"),
    api("a bad node name", "nodes: [N1.example]", "nodes[0]", "'N1.example' is not a valid name", NAME),
    api("a tag twice", "tags: [a, a]", "tags[1]", "'a' is given twice", "remove one"),
    api("no duration", "start_timeout: 5 minutes", "start_timeout", "'5 minutes' is not a duration", DURATION),
    api("units in disorder", "start_timeout: 5s1m", "start_timeout", "'5s1m' is not a duration", DURATION),
    api("a negative duration", "stop_timeout: -3s", "stop_timeout", "'-3s' is a negative duration", DURATION),
    api("a time-out of nothing", "stop_timeout: 0s", "stop_timeout", "has to be longer than 0s", DURATION),
    api("no endpoint", "endpoint: 127.0.0.1:80", "endpoint", "'127.0.0.1:80' is not a URL", ENDPOINT),
    api("no port", "endpoint: http://db", "endpoint", "'http://db' has no port", ENDPOINT),
    api("a port too high", "endpoint: http://db:65536", "endpoint", "'65536' is not a port", ENDPOINT),
    api("half an address", "endpoint: http://10.0.0.300:80", "endpoint", "has no valid host", ENDPOINT),
    api("a password", "endpoint: redis://:pw@db:1", "endpoint", "must not hold credentials", "before the @"),
    api("any address", "endpoint: http://0.0.0.0:1", "endpoint", "0.0.0.0 is where a server listens", "that clients"),
    api("a bad meta key", "meta: {a b: c}", 'meta["a b"]', "'a b' is not a valid meta key", "use letters, digits"),
    api("a key of Consul's", "meta: {consul-x: c}", "meta.consul-x", "belong to Consul", "choose another key"),
    api("a key of citadel's", "meta: {citadel-x: c}", "meta.citadel-x", "for citadel to set", "choose another key"),
    api("a flag as meta", "meta: {beta: true}", "meta.beta", "true is not text", 'quote it: "true"'),
    api("a bad figure", "metrics: {GPU: a}", "metrics.GPU", "'GPU' is not a valid name of a figure", "use lower-case"),
    api(
        "a figure of citadel's", "metrics: {status: a}", "metrics.status", "citadel itself says", "choose another name"
    ),
    api("no path", "metrics: {load: a..b}", "metrics.load", "'a..b' is not a path", "names joined by dots"),
    api("a path as number", "metrics: {load: 5}", "metrics.load", "5 is not text", 'quote it: "5"'),
    api("a template elsewhere", "template: ../x", "template", "'../x' is not the name of a template", "file name"),
    api("an unknown policy", "on_failure: rolback", "on_failure", "is not one of rollback, keep", "mean rollback?"),
    api("no attempts", "recovery: {attempts: 0}", "recovery.attempts", "0 is too small", "use 1 or more"),
    api("attempts as text", "recovery: {attempts: many}", "recovery.attempts", "'many' is not a whole number", ""),
    api(
        "a delay beyond the longest",
        "recovery: {delay: 10m, max_delay: 1m}",
        "recovery.delay",
        "10m is longer than max_delay (1m)",
        "shorten delay",
    ),
]

BACKENDS = [
    backend("an unknown kind", "kind: dockr", "kind", "'dockr' is not one of process,", "did you mean docker?"),
    backend("a kind that is a number", "kind: 3", "kind", "3 is not process", "write process"),
    backend("a key of another kind", "unit: x.service", "unit", "kind process has no 'unit'", "add `kind: systemd`"),
    other("a bus misspelt", "{kind: systemd, unit: x.service, bsu: user}", ".bsu", "unknown key", "mean bus?"),
    other("no unit", "{kind: systemd}", ".unit", "is missing: no unit to run", "add `unit: name.service`"),
    other("half a unit", "{kind: systemd, unit: redis}", ".unit", "not the whole name", "write redis.service"),
    other("a timer", "{kind: systemd, unit: a.timer}", ".unit", "is a timer, which has no process", "name its service"),
    other("a bare template", "{kind: systemd, unit: a@.service}", ".unit", "without an instance", "write a@1.service"),
    other("a bad unit", "{kind: systemd, unit: 'a b.service'}", ".unit", "not a valid name of a unit", "letters"),
    other("no such bus", "{kind: systemd, unit: a.service, bus: dbus}", ".bus", "not one of system, user", "choose"),
    other("no container", "{kind: docker}", "", "names no container", "add `container: name`"),
    other("two ways to a container", "{kind: docker, container: a, file: c.yaml}", ".container", "exclude", "or file"),
    other("a file alone", "{kind: docker, file: c.yaml}", ".service", "needs both", "add `service: name`"),
    other("a project alone", "{kind: docker, project: p, service: s}", ".file", "needs both", "file: compose.yaml"),
    other("a bad container", "{kind: docker, container: /a}", ".container", "name of a container", "letters, digits"),
    other("a bad project", "{kind: docker, file: a, service: b, project: A}", ".project", "a project", "lower-case"),
    other("no start", "{kind: command, stop: [a], status: [b]}", ".start", "nothing starts it", "start: [program"),
    other("no status", "{kind: command, stop: [a], start: [b]}", ".status", "whether it runs", "status: [program"),
    other(
        "a shell line to start", "{kind: command, start: a b, stop: [a], status: [b]}", ".start", "is text", "[a, b]"
    ),
    other(
        "polling without a pause",
        "{kind: command, start: [a], stop: [a], status: [a], poll: 0s}",
        ".poll",
        "longer than 0s",
        "write it like 250ms",
    ),
    backend(
        "a shell line", "command: ls -l", "command", "is text, not a list of arguments", "write a list, like [ls, -l]"
    ),
    backend("an empty command", "command: []", "command", "is empty", "give it at least one entry"),
    backend("an argument true", "command: [x, true]", "command[1]", "true is not text", 'quote it: "true"'),
    backend("a nameless variable", "env: {1A: x}", "env.1A", "'1A' is not a valid variable name", "no digit first"),
    backend("a variable without value", "env: {HOME: }", "env.HOME", "has no value", "give it one"),
    backend(
        "a signal misspelt", "stop_signal: SIGTREM", "stop_signal", "not the name of a signal", "did you mean SIGTERM?"
    ),
    backend(
        "half a signal", "stop_signal: TERM", "stop_signal", "'TERM' is not the name of a", "did you mean SIGTERM?"
    ),
    backend("a signal that stops", "stop_signal: SIGSTOP", "stop_signal", "SIGSTOP ends no process", "use SIGTERM"),
    backend(
        "a deadly reload", "reload_signal: SIGKILL", "reload_signal", "no process can handle SIGKILL", "use SIGHUP"
    ),
    backend(
        "a size of nothing",
        "logs: {max_bytes: 10 MO}",
        "logs.max_bytes",
        "'10 MO' is not a size",
        "write it like 64KiB",
    ),
    backend("a tiny log", "logs: {max_bytes: 1KiB}", "logs.max_bytes", "1024 bytes is too small", "use 4KiB or more"),
    backend("no log", "logs: {files: 0}", "logs.files", "0 is too small", "use 1 or more"),
    backend("an open template", 'cwd: "{{ node.name"', "cwd", "not a valid template", "two literal braces"),
    backend("an unknown name", 'cwd: "{{ nod.name }}"', "cwd", "a template cannot use 'nod'", "did you mean node?"),
    backend("an unknown part", 'cwd: "{{ node.nme }}"', "cwd", "'node' has no 'nme'", "did you mean name?"),
    backend("an unknown filter", 'cwd: "{{ stack|sha }}"', "cwd", "No filter named 'sha'", "that Jinja has"),
]

CHECKS = [
    check("an unknown kind", "{htpp: 'http://a:1'}", ".htpp", "unknown key", "did you mean http?"),
    check(
        "two kinds", "{tcp: 'a:1', ttl: 5s}", "", "has tcp and ttl: a check is of one kind", "make it several checks"
    ),
    check("no kind", "{interval: 5s}", "", "says nothing to check", "add one of http, tcp, grpc, ttl, script"),
    check("no mapping", "http://a:1", "", "'http://a:1' is not a mapping", ""),
    check("no URL", "{http: localhost/health}", ".http", "'localhost/health' is not a URL", HTTP_URL),
    check("another scheme", "{http: 'ftp://a/'}", ".http", "an http check cannot ask ftp://", HTTP_URL),
    check("no port", "{tcp: localhost}", ".tcp", "'localhost' is not host:port", HOST_PORT),
    check("port zero", "{tcp: 'localhost:0'}", ".tcp", "'0' is not a port (1 to 65535)", HOST_PORT),
    check("bare IPv6", "{tcp: '::1:80'}", ".tcp", "'::1:80' is not host:port", HOST_PORT),
    check("no gRPC host", "{grpc: ':1/x'}", ".grpc", "':1' is not host:port", HOST_PORT),
    check("a script line", "{script: check -f}", ".script", "is text, not a list", "write a list, like [check, -f]"),
    check(
        "too often",
        "{tcp: 'a:1', interval: 500ms}",
        ".interval",
        "500ms is shorter than Consul's minimum",
        "use 1s or more",
    ),
    check(
        "a long time-out",
        "{tcp: 'a:1', interval: 2s, timeout: 3s}",
        ".timeout",
        "3s is longer than the interval (2s)",
        "shorten the timeout",
    ),
    check("interval of ttl", "{ttl: 30s, interval: 5s}", ".interval", "has no meaning for a ttl check", "remove it"),
    check("method of tcp", "{tcp: 'a:1', method: GET}", ".method", "has no meaning for a tcp check", "remove it"),
    check(
        "a small method", "{http: 'http://a:1', method: get}", ".method", "'get' is not one of GET", "did you mean GET?"
    ),
    check(
        "a bad header",
        "{http: 'http://a:1', headers: {'a b': c}}",
        '.headers["a b"]',
        "not a valid header",
        "a token of",
    ),
    check("a bad name", "{tcp: 'a:1', name: My check}", ".name", "'My check' is not a valid name", NAME),
    check(
        "failures below none",
        "{tcp: 'a:1', failures_before_critical: -1}",
        ".failures_before_critical",
        "-1 is too",
        "use 0",
    ),
]

EDGES = [
    edge("no service of that name", "[redsi]", "[0]", "there is no service 'redsi'", "did you mean redis?"),
    edge("nothing like it", "[mailer]", "[0]", "there is no service 'mailer'", "known services: redis"),
    edge("itself", "[api]", "[0]", "'api' depends on itself", "remove it"),
    edge("twice", "[redis, redis]", "[1]", "'redis' is given twice", "remove one"),
    edge("text", "redis", "", "'redis' is neither a list nor a mapping", "write [redis]"),
    edge("no name", "[Redis_1]", "[0]", "'Redis_1' is not a valid name", NAME),
    edge("an edge that is text", "{redis: healthy}", ".redis", "'healthy' is not a mapping", ""),
    edge(
        "a condition misspelt",
        "{redis: {condition: helthy}}",
        ".redis.condition",
        "'helthy' is not one",
        "mean healthy?",
    ),
    edge(
        "an unknown strength", "{redis: {strength: firm}}", ".redis.strength", "'firm' is not one of hard", "choose one"
    ),
    edge("no instances", "{redis: {min_instances: 0}}", ".redis.min_instances", "0 is too small", "use 1 or more"),
    edge(
        "too many instances", "{redis: {min_instances: 2}}", ".redis.min_instances", "2 is more than", "use 1 or less"
    ),
    edge(
        "never completed",
        "{redis: {condition: completed}}",
        ".redis.condition",
        "'redis' is not a oneshot",
        "use healthy",
    ),
]

BETWEEN_SERVICES = [
    top(
        "a cycle",
        "version: 1\nstack: s\nservices:\n"
        f"  a: {{{SERVICE}, depends_on: [b]}}\n"
        f"  b: {{{SERVICE}, depends_on: {{c: {{strength: soft}}}}}}\n"
        f"  c:\n    <<: {{{SERVICE}}}\n    depends_on:\n      - a\n",
        "9: services.c.depends_on[0]",
        "the dependencies form a cycle: c → a → b → c",
        "remove one of these dependencies; soft ones count too",
    ),
    top(
        "a port taken",
        "version: 1\nstack: s\nservices:\n"
        f"  a: {{{SERVICE}, endpoint: 'http://localhost:80'}}\n"
        f"  b: {{{SERVICE}, endpoint: 'redis://127.0.0.1:80'}}\n",
        "5: services.b.endpoint",
        "port 80 on node 'n1' is claimed by 'a' and 'b'",
        "give one of them another port or node",
    ),
    top(
        "a port taken by a template",
        "version: 1\nstack: s\nservices:\n"
        f"  a: {{{SERVICE}, endpoint: 'http://{{{{ node.address }}}}:80/x'}}\n"
        f"  b: {{{SERVICE}, endpoint: 'http://10.0.0.9:80'}}\n",
        "5: services.b.endpoint",
        "port 80 on node 'n1' is claimed by 'a' and 'b'",
        "give one of them another port or node",
    ),
    top(
        "health of a oneshot",
        "version: 1\nstack: s\nservices:\n"
        f"  a: {{{SERVICE}, depends_on: {{job: {{condition: healthy}}}}}}\n  job: {{{SERVICE}, oneshot: true}}\n",
        "4: services.a.depends_on.job.condition",
        "'job' is a oneshot service: it completes",
        "use completed",
    ),
    top(
        "checks of a oneshot",
        f"version: 1\nstack: s\nservices:\n  job: {{{SERVICE}, oneshot: true, checks: [{{ttl: 5s}}]}}\n",
        "4: services.job.checks",
        "'job' is a oneshot service: it exits",
        "remove the checks, or `oneshot`",
    ),
    top(
        "two checks of one name",
        f"version: 1\nstack: s\nservices:\n  a:\n    <<: {{{SERVICE}}}\n    checks:\n"
        "      - tcp: a:1\n      - tcp: a:2\n",
        "8: services.a.checks[1].name",
        "a second check named 'tcp'",
        "give each check its own name",
    ),
    top(
        "a mistake in the defaults",
        f"version: 1\nstack: s\ndefaults:\n  depends_on: [b]\nservices:\n  a: {{{SERVICE}}}\n  c: {{{SERVICE}}}\n",
        "4: defaults.depends_on[0]",
        "there is no service 'b'",
        "known services:",
    ),
]

ALL = [*NOT_YAML, *FILE_LEVEL, *FIELDS, *BACKENDS, *CHECKS, *EDGES, *BETWEEN_SERVICES]


def problems_of(text: str) -> tuple[Problem, ...]:
    with pytest.raises(InvalidInput) as caught:
        parse_stack(text, "shop.yaml")
    return caught.value.problems


def test_the_file_that_the_cases_break_is_good() -> None:
    assert list(parse_stack(GOOD, "shop.yaml").services) == ["redis", "api"]


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_a_broken_stack_file_is_explained(case: Broken) -> None:
    (problem,) = problems_of(case.text)
    assert problem.place == case.place
    assert case.message in problem.message
    assert case.remedy in problem.remedy
    assert bool(case.remedy) == bool(problem.remedy)


def test_every_problem_of_a_file_is_reported_at_once_from_top_to_bottom() -> None:
    problems = problems_of(
        "version: 1\n"
        "stack: Shop\n"
        "services:\n"
        "  a:\n"
        "    type: t\n"
        "    type: u\n"
        "    nodes: [n1]\n"
        "    start_timeout: soon\n"
        "    backend: {command: [x], usr: nobody}\n"
        "    endpoint: http://h:80\n"
        "    checks: [{tcp: h, interval: 0.1}, {tcp: 'h:1', timeout: 9, interval: 3}]\n"
        "    depends_on: {b: {condition: up}, c: }\n"
        "  b: {type: t, nodes: [n1], endpoint: 'http://h:80', backend: {command: [x]}, depends_on: [a]}\n"
    )
    assert [problem.place.removeprefix("shop.yaml:") for problem in problems] == [
        "2: stack",
        "6: services.a.type",
        "8: services.a.start_timeout",
        "9: services.a.backend.usr",
        "11: services.a.checks[0].tcp",
        "11: services.a.checks[0].interval",
        "11: services.a.checks[1].timeout",
        "11: services.a.checks[1].name",
        "12: services.a.depends_on.b.condition",
        "12: services.a.depends_on.c",
        "13: services.b.depends_on[0]",
        "13: services.b.endpoint",
    ]


def test_a_bad_field_does_not_hide_a_cycle_through_its_service() -> None:
    problems = problems_of(
        "version: 1\nstack: s\nservices:\n"
        "  a: {type: 3, nodes: x, backend: [], checks: 7, depends_on: {b: {condition: up}}}\n"
        f"  b: {{{SERVICE}, depends_on: [a]}}\n"
    )
    assert [problem.message for problem in problems if "cycle" in problem.message] == [
        "the dependencies form a cycle: b → a → b"
    ]


def test_every_cycle_is_reported_once() -> None:
    chain = {"a": "b", "b": "c", "c": "a", "d": "e", "e": "d", "f": "a"}
    services = "".join(f"  {name}: {{{SERVICE}, depends_on: [{needs}]}}\n" for name, needs in chain.items())
    problems = problems_of(f"version: 1\nstack: s\nservices:\n{services}")
    assert [problem.message for problem in problems] == [
        "the dependencies form a cycle: c → a → b → c",
        "the dependencies form a cycle: e → d → e",
    ]


def test_a_merge_may_not_break_a_limit_that_its_parts_keep() -> None:
    def meta(first: int) -> str:
        return "{" + ", ".join(f"k{number}: x" for number in range(first, first + 40)) + "}"

    text = f"version: 1\nstack: s\ndefaults: {{meta: {meta(0)}}}\nservices:\n  a: {{{SERVICE}, meta: {meta(40)}}}\n"
    (problem,) = problems_of(text)
    assert problem == Problem("shop.yaml:5: services.a.meta", "has too many entries", "use 58 or less")


def test_an_empty_file_is_told_what_it_lacks() -> None:
    assert [problem.place for problem in problems_of("")] == [
        "shop.yaml:1: version",
        "shop.yaml:1: stack",
        "shop.yaml:1: services",
    ]
