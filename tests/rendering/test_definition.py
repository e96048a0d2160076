"""Service definitions by type and kind of check, and what a template may and may not do."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from citadel_consul.core.model import Check, CheckKind, ProcessBackend, ServiceSpec
from citadel_consul.errors import InvalidInput
from citadel_consul.rendering.definition import render_definition
from citadel_consul.rendering.scope import NodeContext

CONTEXT = NodeContext(name="n1", address="192.0.2.7", stack="main")
SPEC = ServiceSpec(
    name="redis",
    type="cache",
    nodes=("n1",),
    backend=ProcessBackend(command=("redis-server",)),
    endpoint="redis://{{ node.address }}:6380/0",
)
CHECKS = (
    Check("ping", CheckKind.TCP, "192.0.2.7:6380", interval_seconds=10, timeout_seconds=0.25),
    Check("web", CheckKind.HTTP, "http://192.0.2.7/health", method="HEAD", headers={"Accept": ("a", "b")}),
    Check("rpc", CheckKind.GRPC, "192.0.2.7:50051/health", tls_skip_verify=True),
    Check("beat", CheckKind.TTL, ttl_seconds=15),
    Check("disk", CheckKind.SCRIPT, args=("check-disk", "/srv"), success_before_passing=2, failures_before_critical=3),
)


def service(spec: ServiceSpec, *template_dirs: Path, context: NodeContext = CONTEXT) -> dict[str, Any]:
    return cast("dict[str, Any]", render_definition(spec, context, template_dirs)["service"])


def override(tmp_path: Path, name: str, text: str) -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("type_", "weights"),
    [
        ("database", (10, 10)),
        ("cache", (10, 5)),
        ("ai_service", (10, 0)),
        ("gateway", (10, 1)),
        ("processing", (10, 0)),
        ("something-else", (10, 1)),
    ],
)
def test_each_type_has_its_template_and_the_rest_share_one(type_: str, weights: tuple[int, int]) -> None:
    rendered = service(replace(SPEC, type=type_, checks=CHECKS))
    assert (rendered["weights"]["passing"], rendered["weights"]["warning"]) == weights
    assert rendered["tags"] == [type_]
    assert [check["name"] for check in rendered["checks"]] == ["ping", "web", "rpc", "beat", "disk"]


def test_the_identity_of_an_instance_comes_from_stack_service_and_node() -> None:
    rendered = service(replace(SPEC, checks=CHECKS, tags=("primary", "cache"), meta={"rack": "a"}, critical=False))
    assert rendered["id"] == "main.redis.n1"
    assert rendered["name"] == "redis"
    assert rendered["checks"][0]["id"] == "main.redis.n1:ping"
    assert rendered["tags"] == ["primary", "cache"]
    assert rendered["meta"] == {
        "rack": "a",
        "citadel-stack": "main",
        "citadel-node": "n1",
        "citadel-type": "cache",
        "citadel-critical": "false",
        "citadel-scheme": "redis",
        "external-source": "citadel",
    }


def test_each_kind_of_check_has_its_fields() -> None:
    tcp, http, grpc, ttl, script = ({**c, "notes": ""} for c in service(replace(SPEC, checks=CHECKS))["checks"])
    common = {"notes": "", "interval": "10s", "timeout": "5s"}
    assert tcp == {**common, "id": "main.redis.n1:ping", "name": "ping", "tcp": "192.0.2.7:6380", "timeout": "0.25s"}
    assert http == {
        **common,
        "id": "main.redis.n1:web",
        "name": "web",
        "http": "http://192.0.2.7/health",
        "method": "HEAD",
        "header": {"Accept": ["a", "b"]},
    }
    assert grpc == {
        **common,
        "id": "main.redis.n1:rpc",
        "name": "rpc",
        "grpc": "192.0.2.7:50051/health",
        "grpc_use_tls": True,
        "tls_skip_verify": True,
    }
    assert ttl == {"notes": "", "id": "main.redis.n1:beat", "name": "beat", "ttl": "15s"}
    assert script == {
        **common,
        "id": "main.redis.n1:disk",
        "name": "disk",
        "args": ["check-disk", "/srv"],
        "success_before_passing": 2,
        "failures_before_critical": 3,
    }


@pytest.mark.parametrize(
    ("endpoint", "address", "port"),
    [
        ("http://10.0.0.1:8000/path", "10.0.0.1", 8000),
        ("https://db.example", "db.example", 443),
        ("postgresql://user:secret@10.0.0.1/db", "10.0.0.1", 5432),
        ("http://[2001:db8::1]:80", "2001:db8::1", 80),
        ("http://localhost:81", "127.0.0.1", 81),
        ("unheard-of://10.0.0.1", "10.0.0.1", None),
        (None, "192.0.2.7", None),
    ],
)
def test_address_and_port_come_from_the_endpoint(endpoint: str | None, address: str, port: int | None) -> None:
    rendered = service(replace(SPEC, endpoint=endpoint))
    assert (rendered["address"], rendered.get("port")) == (address, port)
    assert "secret" not in json.dumps(rendered)


@pytest.mark.parametrize("endpoint", ["redis", "http://", "http://a:99999", "http://0.0.0.0:80", "http://[::]:80"])
def test_an_endpoint_that_no_client_can_use_is_bad_input(endpoint: str) -> None:
    with pytest.raises(InvalidInput, match=r"services\.redis\.endpoint"):
        service(replace(SPEC, endpoint=endpoint))


HOSTILE = 'x"}],"id":"evil","tags":["\n\t\\"\u2028</script>{{ }}'.replace("{{ }}", "{ { } }")


def test_no_value_breaks_out_of_its_string() -> None:
    check = Check("web", CheckKind.HTTP, f"http://h/{HOSTILE}", method=HOSTILE, headers={HOSTILE: (HOSTILE,)})
    script = Check(HOSTILE, CheckKind.SCRIPT, args=(HOSTILE,))
    rendered = service(replace(SPEC, tags=(HOSTILE,), meta={"note": HOSTILE}, checks=(check, script)))
    assert rendered["id"] == "main.redis.n1"
    assert rendered["tags"] == [HOSTILE, "cache"]
    assert rendered["meta"]["note"] == HOSTILE
    assert rendered["checks"][0]["http"] == f"http://h/{HOSTILE}"
    assert rendered["checks"][0]["method"] == HOSTILE
    assert rendered["checks"][0]["header"] == {HOSTILE: [HOSTILE]}
    assert rendered["checks"][1]["name"] == HOSTILE
    assert rendered["checks"][1]["args"] == [HOSTILE]


def test_a_template_by_name_wins_over_the_one_by_type(tmp_path: Path) -> None:
    text = '{% extends "service.json.j2" %}{% block weights %}{"passing": 3, "warning": 2}{% endblock %}'
    directory = override(tmp_path, "mine.json.j2", text)
    assert service(replace(SPEC, template="mine.json.j2"), directory)["weights"] == {"passing": 3, "warning": 2}
    assert service(SPEC, directory)["weights"] == {"passing": 10, "warning": 5}


def test_a_users_directory_can_replace_and_extend_a_shipped_template(tmp_path: Path) -> None:
    text = """
        {% extends "citadel/service.json.j2" %}
        {% block tags %}{{ (tags + ["mine"])|tojson }}{% endblock %}
        {% block extra %}"enable_tag_override": true,{% endblock %}
    """
    directory = override(tmp_path, "service.json.j2", text)
    rendered = service(replace(SPEC, type="odd"), directory)
    assert rendered["tags"] == ["odd", "mine"]
    assert rendered["enable_tag_override"] is True


def test_a_changed_template_is_used_at_once(tmp_path: Path) -> None:
    text = '{{% extends "citadel/service.json.j2" %}}{{% block weights %}}{{"passing": {}}}{{% endblock %}}'
    assert service(SPEC, override(tmp_path, "cache.json.j2", text.format(1)))["weights"] == {"passing": 1}
    assert service(SPEC, override(tmp_path, "cache.json.j2", text.format(2)))["weights"] == {"passing": 2}
    (tmp_path / "cache.json.j2").unlink()
    assert service(SPEC, tmp_path)["weights"] == {"passing": 10, "warning": 5}


def test_template_directories_are_searched_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    text = '{{% extends "citadel/service.json.j2" %}}{{% block weights %}}{{"passing": {}}}{{% endblock %}}'
    for number, directory in enumerate((first, second)):
        directory.mkdir()
        override(directory, "cache.json.j2", text.format(number))
    assert service(SPEC, first, second)["weights"] == {"passing": 0}
    assert service(SPEC, second, first)["weights"] == {"passing": 1}


def test_the_example_of_the_documentation_works(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "registration.md"
    (example,) = re.findall(r"```jinja\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    rendered = service(SPEC, override(tmp_path, "cache.json.j2", example))
    assert rendered["tags"] == ["cache", "memory"]
    assert rendered["tagged_addresses"] == {"wan": {"address": "192.0.2.7", "port": 6380}}
    assert rendered["weights"] == {"passing": 10, "warning": 5}


def test_a_template_directory_that_does_not_exist_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere does not exist"):
        service(SPEC, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["nowhere.json.j2", "../secret.json.j2", "/etc/passwd", ""])
def test_a_template_that_is_not_in_the_directories_is_bad_input(name: str, tmp_path: Path) -> None:
    inner = tmp_path / "templates"
    inner.mkdir()
    override(tmp_path, "secret.json.j2", "{}")
    with pytest.raises(InvalidInput, match=r"services\.redis\.template.* does not exist"):
        service(replace(SPEC, template=name), inner)


def with_fields(fields: str) -> str:
    """A template that is right but for ``fields``."""
    return '{"service": {"id": {{ id|tojson }}, "name": "redis", ' + fields + "}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"service": {\n"id": {{ id }}\n}}', r"bad\.json\.j2: line 2 of its output is not JSON.*main\.redis\.n1"),
        ('{"service": {"id": "a", "id": "b"}}', r"the key 'id' occurs twice"),
        ('{"service": {"port": NaN}}', "NaN is not JSON"),
        ("[]", "must be an object with the key 'service'"),
        ("{}", "service: must be an object"),
        ('{"service": {}, "watches": []}', "definition.watches: is not a field"),
        (with_fields('"wheights": {}'), "service.wheights: is not a field"),
        (with_fields('"token": "s"'), "service.token.*header"),
        ('{"service": {"id": "evil", "name": "redis"}}', "must be 'main.redis.n1'"),
        ('{"service": {"id": {{ id|tojson }}, "name": "other"}}', "name: must be 'redis'"),
        (with_fields('"port": "80"'), "port: must be a number"),
        (with_fields('"port": 65536'), "port: must be a number"),
        (with_fields('"tags": "a"'), "service.tags: must be an array"),
        (with_fields('"tags": [1]'), r"tags\[0\]: must be a string"),
        (with_fields('"meta": {"a b": "c"}'), "meta.a b: keys are letters"),
        (with_fields('"meta": {"consul-x": "c"}'), "keeps keys that begin with 'consul-'"),
        (with_fields('"meta": {"a": 1}'), "meta.a: must be a string"),
        (with_fields('"checks": [{"id": "a", "name": "a"}]'), "the check is of no kind"),
        (
            with_fields('"checks": [{"id": "a", "name": "a", "ttl": "1s", "tcp": "a:1"}]'),
            "the check is tcp and ttl at once",
        ),
        (with_fields('"check": {"id": "a", "name": "a", "tcp": "a:1"}'), "needs an interval"),
        (with_fields('"check": {"ttl": "1s"}'), r"checks\[0\]\.id: is missing"),
        (
            with_fields('"checks": [{"id":"a","name":"a","ttl":"1s"},{"id":"a","name":"b","ttl":"1s"}]'),
            "2 checks have the id 'a'",
        ),
        ("{{ nothing }}", r"template bad\.json\.j2 line 1: 'nothing' is undefined"),
        ("a\n{{ node.adress }}", r"template bad\.json\.j2 line 2: 'node\.adress' is undefined"),
        ("\n{% block %}", r"template bad\.json\.j2 line 2: not a Jinja template"),
        ('{% extends "missing.j2" %}', r"template 'missing\.j2' does not exist"),
        ("{{ (1).__class__.__mro__ }}", r"template bad\.json\.j2 line 1"),
    ],
)
def test_a_bad_template_is_reported_with_its_name_and_the_mistake(text: str, message: str, tmp_path: Path) -> None:
    directory = override(tmp_path, "bad.json.j2", text)
    with pytest.raises(InvalidInput, match=f"(?s)^services\\.redis.*{message}"):
        service(replace(SPEC, template="bad.json.j2"), directory)


@pytest.mark.parametrize("key", ["citadel-stack", "citadel-anything", "external-source"])
def test_the_metadata_that_marks_citadels_services_cannot_be_set(key: str) -> None:
    with pytest.raises(InvalidInput, match=f"services.redis.meta.{key}: is set by citadel"):
        service(replace(SPEC, meta={key: "x"}))


def test_metadata_has_consuls_limits() -> None:
    service(replace(SPEC, meta={"a" * 128: "é" * 256}))
    for meta in ({"a" * 129: ""}, {"a": "é" * 257}, {"": "x"}, {f"k{i}": "" for i in range(60)}):
        with pytest.raises(InvalidInput, match="meta"):
            service(replace(SPEC, meta=meta))


def test_text_that_is_no_unicode_is_bad_input() -> None:
    with pytest.raises(InvalidInput, match="surrogates not allowed"):
        service(replace(SPEC, tags=("\ud800",)))
