"""The linter finds every seeded fault, and nothing where there is none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from citadel_consul.config.settings import load_settings
from citadel_consul.config.stackfile import load_stack
from citadel_consul.core.finding import Severity
from citadel_consul.core.linting.definitions import Circumstances, Registration, lint_definitions
from citadel_consul.core.linting.durations import duration_seconds
from citadel_consul.core.linting.outputs import Printed, lint_outputs
from citadel_consul.core.linting.rules import RULES
from citadel_consul.doctor.checks import lint_specs

ROOT = Path(__file__).resolve().parents[2]
Service = dict[str, Any]

SOUND: Service = {
    "id": "main.web.n1",
    "name": "web",
    "address": "10.0.0.1",
    "port": 8080,
    "checks": [
        {
            "id": "main.web.n1:http",
            "name": "http",
            "http": "http://10.0.0.1:8080/ready",
            "interval": "5s",
            "timeout": "2s",
            "failures_before_critical": 2,
            "deregister_critical_service_after": "72h",
        },
        {"id": "main.web.n1:beat", "name": "beat", "ttl": "10s"},
    ],
}


def polled(**fields: object) -> Callable[[Service], None]:
    """A fault in the check that Consul runs; None takes a field out."""

    def seed(service: Service) -> None:
        check = {**service["checks"][0], **fields}
        service["checks"][0] = {key: value for key, value in check.items() if value is not None}

    return seed


def fed(**fields: object) -> Callable[[Service], None]:
    """A fault in the check that the service feeds."""
    return lambda service: service["checks"][1].update(fields)


def without_checks(service: Service) -> None:
    del service["checks"]


def with_a_single_check(service: Service) -> None:
    service["check"] = service.pop("checks")[0] | {"interval": "900ms", "timeout": "500ms"}


def with_one_id_for_two_checks(service: Service) -> None:
    service["checks"][1]["id"] = service["checks"][0]["id"]


FAULTS: list[tuple[str, Callable[[Service], None]]] = [
    ("bad-duration", polled(interval="5 sec")),
    ("bad-duration", polled(timeout="2")),
    ("bad-duration", polled(deregister_critical_service_after=90)),
    ("bad-duration", fed(ttl="ten seconds")),
    ("interval-under-1s", polled(interval="250ms", timeout="200ms")),
    ("interval-under-1s", with_a_single_check),
    ("timeout-over-interval", polled(timeout="5.001s")),
    ("timeout-over-interval", polled(timeout=None)),
    ("timeout-over-interval", polled(http=None, args=["/bin/check"], timeout=None, interval="20s")),
    ("no-threshold", polled(failures_before_critical=None)),
    ("no-threshold", polled(failures_before_critical=0)),
    ("no-threshold", polled(http=None, tcp="10.0.0.1:8080", failures_before_critical=None)),
    ("ttl-too-short", fed(ttl="2s")),
    ("deregister-under-1m", polled(deregister_critical_service_after="30s")),
    ("deregister-too-soon", polled(deregister_critical_service_after="5m")),
    ("scripts-forbidden", polled(http=None, args=["/bin/check"])),
    ("password-in-check", polled(http="http://ops:secret@10.0.0.1:8080/ready")),
    ("duplicate-check-id", with_one_id_for_two_checks),
    ("no-check", without_checks),
]


def findings_of(*services: Service, without_scripts: frozenset[str] = frozenset({"n1"})) -> list[str]:
    registrations = [Registration("n1", service) for service in services]
    return [finding.code for finding in lint_definitions(registrations, Circumstances(without_scripts))]


@pytest.mark.parametrize(("code", "seed"), FAULTS, ids=[f"{n}-{code}" for n, (code, _) in enumerate(FAULTS)])
def test_every_seeded_fault_is_found_and_nothing_else(code: str, seed: Callable[[Service], None]) -> None:
    service = copy.deepcopy(SOUND)
    seed(service)
    expected = {code} | ({"scripts-forbidden"} if "args" in service.get("checks", [{}])[0] else set())
    assert set(findings_of(service)) == expected


def test_all_faults_at_once_are_all_found() -> None:
    services = []
    for number, (_, seed) in enumerate(FAULTS):
        service = copy.deepcopy(SOUND) | {"id": f"main.web{number}.n1", "name": f"web{number}"}
        for check in service["checks"]:
            check["id"] = check["id"].replace("web", f"web{number}")
        seed(service)
        services.append(service)
    found = lint_definitions([Registration("n1", s) for s in services], Circumstances(frozenset({"n1"})))
    for number, (code, _) in enumerate(FAULTS):
        assert code in {f.code for f in found if f.place.split(",")[0].split(" ")[0] == f"web{number}"}, (number, code)


def test_every_rule_has_a_seeded_fault() -> None:
    assert {code for code, _ in FAULTS} | {"duplicate-service-id", "volatile-output"} == set(RULES)


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert findings_of(SOUND) == []


def test_ids_that_two_services_of_a_node_share_are_found_and_on_two_nodes_they_are_fine() -> None:
    other = copy.deepcopy(SOUND) | {"name": "other"}
    assert set(findings_of(SOUND, other)) == {"duplicate-service-id", "duplicate-check-id"}
    apart = lint_definitions([Registration("n1", SOUND), Registration("n2", other)])
    assert apart == ()


def test_what_is_wrong_on_every_node_is_said_once() -> None:
    service = copy.deepcopy(SOUND)
    fed(ttl="1s")(service)
    found = lint_definitions([Registration(f"n{n}", service) for n in range(5)])
    assert [finding.code for finding in found] == ["ttl-too-short"]


def test_a_script_is_no_fault_where_the_agent_takes_it_or_nobody_knows() -> None:
    service = copy.deepcopy(SOUND)
    polled(http=None, args=["/bin/check"])(service)
    assert findings_of(service, without_scripts=frozenset({"n2"})) == []


def test_a_removal_is_judged_by_how_long_the_service_is_recovered() -> None:
    service = copy.deepcopy(SOUND)
    polled(deregister_critical_service_after="1h")(service)
    registrations = [Registration("n1", service)]
    assert lint_definitions(registrations, Circumstances(recoverable_seconds={"web": 3600.0})) == ()
    (finding,) = lint_definitions(registrations, Circumstances(recoverable_seconds={"web": 7200.0}))
    assert finding.code == "deregister-too-soon"
    assert "120 minutes" in finding.remedy


def test_each_finding_says_where_and_what_to_do() -> None:
    for _, seed in FAULTS:
        service = copy.deepcopy(SOUND)
        seed(service)
        for finding in lint_definitions([Registration("n1", service)], Circumstances(frozenset({"n1"}))):
            assert finding.place.startswith("web")
            assert finding.message
            assert finding.remedy
            assert finding.severity is RULES[finding.code]
            assert "secret" not in finding.message


def printed(status: str, output: str) -> Printed:
    return Printed("web@n1, check http", status, output)


def test_an_output_that_changes_while_the_status_does_not_is_volatile() -> None:
    before = {"a": printed("passing", '200 OK Output: {"status":"ok","uptime":12}'), "b": printed("passing", "fine")}
    after = {"a": printed("passing", '200 OK Output: {"status":"ok","uptime":17}'), "b": printed("passing", "fine")}
    (finding,) = lint_outputs(before, after)
    assert (finding.code, finding.severity) == ("volatile-output", Severity.WARNING)
    assert 'uptime":12' in finding.message
    assert 'uptime":17' in finding.message


def test_an_output_that_changes_with_the_status_is_not_volatile_nor_is_a_new_check() -> None:
    before = {"a": printed("passing", "200 OK")}
    assert lint_outputs(before, {"a": printed("critical", "503"), "b": printed("passing", "200 OK")}) == ()


def test_a_check_that_runs_for_the_first_time_has_not_changed_its_output() -> None:
    assert lint_outputs({"a": printed("passing", "")}, {"a": printed("passing", "200 OK")}) == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10.0), ("1m30s", 90.0), ("250ms", 0.25), ("1.5h", 5400.0), ("0", 0.0), (".5s", 0.5), ("3µs", 3e-6),
        ("10", None), ("s", None), ("", None), ("-5s", None), ("5 s", None), ("1d", None), (5, None), (None, None),
    ],
)  # fmt: skip
def test_durations_are_read_as_consul_reads_them(text: object, seconds: float | None) -> None:
    assert duration_seconds(text) == (None if seconds is None else pytest.approx(seconds))


def test_nothing_is_found_on_the_example_stack() -> None:
    settings = load_settings({}, {})
    stack = load_stack(ROOT / "examples" / "ai-platform" / "stack.yaml")
    nodes = frozenset(node for spec in stack.services.values() for node in spec.nodes)
    report = lint_specs(stack.services.values(), stack.name, settings, forbidding=nodes)
    assert report.findings == ()
    assert report.summary == "12 registrations of 12 services judged"


def test_a_user_s_template_is_judged_by_what_it_renders(tmp_path: Path) -> None:
    (tmp_path / "eager.json.j2").write_text(
        '{% extends "citadel/service.json.j2" %}\n'
        "{% block checks %}"
        '[{"id": "mine", "name": "mine", "http": "http://127.0.0.1:1/", "interval": "1s", "timeout": "1s",'
        ' "failures_before_critical": 3, "deregister_critical_service_after": "10s"}]'
        "{% endblock %}\n"
    )
    file = tmp_path / "stack.yaml"
    services = "".join(
        f"  {name}: {{type: t, nodes: [n1], template: eager.json.j2,  backend: {{command: [x]}}}}\n"
        for name in ("one", "two")
    )
    file.write_text(f"version: 1\nstack: s\nservices:\n{services}")
    settings = load_settings({"templates": str(tmp_path)}, {})
    stack = load_stack(file)
    found = [f.code for f in lint_specs(stack.services.values(), "s", settings).findings]
    assert sorted(found) == ["deregister-under-1m", "deregister-under-1m", "duplicate-check-id"]


def test_a_template_that_does_not_render_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "t.json.j2").write_text('{"service": {"id": {{ nobody }} }}')
    file = tmp_path / "stack.yaml"
    file.write_text("version: 1\nstack: s\nservices:\n  a: {type: t, nodes: [n1, n2], backend: {command: [x]}}\n")
    settings = load_settings({"templates": str(tmp_path)}, {})
    (finding,) = lint_specs(load_stack(file).services.values(), "s", settings).findings
    assert finding.code == "not-rendered"
    assert "nobody" in finding.message
