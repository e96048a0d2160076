"""Templated strings of a spec, rendered for a node."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from citadel_consul.core.model import (
    Backend,
    Check,
    CheckKind,
    CommandBackend,
    DockerBackend,
    ProcessBackend,
    ServiceSpec,
    SystemdBackend,
)
from citadel_consul.errors import InvalidInput
from citadel_consul.rendering.expansion import expand
from citadel_consul.rendering.scope import NodeContext

CONTEXT = NodeContext(name="n1", address="192.0.2.7", stack="main")
PLAIN = ServiceSpec(name="redis", type="cache", nodes=("n1",), backend=ProcessBackend(command=("redis-server",)))


def test_a_spec_without_templates_is_the_same_object() -> None:
    spec = replace(PLAIN, tags=("a {single} brace",), meta={"json": '{"a": 1}'})
    assert expand(spec, CONTEXT) is spec


def test_every_templated_field_is_rendered() -> None:
    check = Check(
        name="web",
        kind=CheckKind.HTTP,
        target="http://{{ node.address }}/",
        args=("{{ service.name }}",),
        headers={"X-Node": ("{{ node.name }}", "plain")},
    )
    spec = replace(
        PLAIN,
        endpoint="redis://{{ node.address }}:6379",
        health_endpoint="http://{{ node.address }}/ping",
        backend=ProcessBackend(
            command=("{{ python }}", "-m", "{{ service.name }}"),
            env={"NODE": "{{ node.name }}"},
            cwd="/srv/{{ stack }}",
        ),
        checks=(check,),
        tags=("{{ service.type }}-{{ node.name }}",),
        meta={"rack": "{% if node.name == 'n1' %}a{% else %}b{% endif %}"},
    )
    expanded = expand(spec, CONTEXT)
    assert expanded.endpoint == "redis://192.0.2.7:6379"
    assert expanded.health_endpoint == "http://192.0.2.7/ping"
    assert isinstance(expanded.backend, ProcessBackend)
    assert expanded.backend.command == (sys.executable, "-m", "redis")
    assert expanded.backend.env == {"NODE": "n1"}
    assert expanded.backend.cwd == "/srv/main"
    assert expanded.checks[0].target == "http://192.0.2.7/"
    assert expanded.checks[0].args == ("redis",)
    assert expanded.checks[0].headers == {"X-Node": ("n1", "plain")}
    assert expanded.tags == ("cache-n1",)
    assert expanded.meta == {"rack": "a"}


def test_node_and_service_alone_are_their_names() -> None:
    spec = replace(PLAIN, tags=("{{ service }}@{{ node }}",))
    assert expand(spec, CONTEXT).tags == ("redis@n1",)


def test_braces_can_be_kept_with_raw() -> None:
    spec = replace(PLAIN, backend=ProcessBackend(command=("x", "{% raw %}{{ .Name }}{% endraw %}\n")))
    backend = expand(spec, CONTEXT).backend
    assert isinstance(backend, ProcessBackend)
    assert backend.command[1] == "{{ .Name }}\n"


@pytest.mark.parametrize(
    ("text", "undefined"),
    [
        ("{{ nod.address }}", "'nod' is undefined"),
        ("{{ node.adress }}", "'node.adress' is undefined"),
        ("{{ service.port + 1 }}", "'service.port' is undefined"),
        ("{% if host %}a{% endif %}", "'host' is undefined"),
    ],
)
def test_an_undefined_name_is_named_with_service_and_field(text: str, undefined: str) -> None:
    spec = replace(PLAIN, backend=ProcessBackend(command=("x",), env={"HOST": text}))
    with pytest.raises(InvalidInput) as caught:
        expand(spec, CONTEXT)
    (problem,) = caught.value.problems
    assert problem.place == "services.redis.backend.env.HOST"
    assert problem.message == undefined
    assert "node.address" in problem.remedy


def test_all_problems_are_reported_at_once() -> None:
    spec = replace(PLAIN, endpoint="{{ a }}", tags=("ok", "{{ b }}"), meta={"k": "{{ c"})
    with pytest.raises(InvalidInput) as caught:
        expand(spec, CONTEXT)
    places = [problem.place for problem in caught.value.problems]
    assert places == ["services.redis.endpoint", "services.redis.tags[1]", "services.redis.meta.k"]


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ node.__class__.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% include '/etc/passwd' %}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
    ],
)
def test_a_string_that_reaches_out_of_the_sandbox_or_fails_is_bad_input(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"services\.redis\.tags\[0\]"):
        expand(replace(PLAIN, tags=(text,)), CONTEXT)


@pytest.mark.parametrize(
    ("written", "expanded"),
    [
        (SystemdBackend("x@{{ node.name }}.service"), SystemdBackend("x@n1.service")),
        (DockerBackend(container="{{ service.name }}-1"), DockerBackend(container="redis-1")),
        (
            DockerBackend(file="/srv/{{ node }}.yaml", service="{{ service }}", project="{{ stack }}"),
            DockerBackend(file="/srv/n1.yaml", service="redis", project="main"),
        ),
        (
            CommandBackend(
                ("x", "{{ node }}"), ("y", "{{ node }}"), ("z", "{{ node }}"), ("r", "{{ node }}"), {"A": "{{ stack }}"}
            ),
            CommandBackend(("x", "n1"), ("y", "n1"), ("z", "n1"), ("r", "n1"), {"A": "main"}),
        ),
    ],
)
def test_the_strings_of_every_kind_of_backend_are_rendered(written: Backend, expanded: Backend) -> None:
    assert expand(replace(PLAIN, backend=written), CONTEXT).backend == expanded


def test_a_unit_that_does_not_render_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"services\.redis\.backend\.unit"):
        expand(replace(PLAIN, backend=SystemdBackend("{{ nonesuch }}.service")), CONTEXT)
