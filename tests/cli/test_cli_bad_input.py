"""Bad input: a message that says what to do, an exit status that says what kind it was, and no trace in Consul."""

from __future__ import annotations

import pytest
from command_line import THREE, CommandLine

pytestmark = pytest.mark.consul

BAD_INPUT, REFUSED = 2, 4

# What is called, its exit status, and what it has to say.
TABLE: list[tuple[str, int, list[str]]] = [
    ("up nosuch", BAD_INPUT, ["unknown service 'nosuch'", "base, middle, top"]),
    ("up midle toop", BAD_INPUT, ["'midle' (did you mean middle?)", "'toop' (did you mean top?)"]),
    ("up base@n9", BAD_INPUT, ["base has no instance on node 'n9'", "n1"]),
    ("up base@", BAD_INPUT, ["base has no instance on node ''"]),
    ("up @n1", BAD_INPUT, ["unknown service ''"]),
    ("up base --timeout 5x", BAD_INPUT, ["--timeout: '5x' is not a duration", "write it like"]),
    ("up base --timeout -5s", BAD_INPUT, ["--timeout: '-5s' is a negative duration"]),
    ("up base --timeout 0", BAD_INPUT, ["--timeout: an operation needs some time"]),
    ("up base --timeout nan", BAD_INPUT, ["--timeout: 'nan' is not a duration"]),
    ("up base --on-failure explode", BAD_INPUT, ["'explode' is not one of", "rollback"]),
    ("down nosuch --cascade", BAD_INPUT, ["unknown service 'nosuch'"]),
    ("restart", BAD_INPUT, ["Missing argument"]),
    ("restart base --rolling --cascade", BAD_INPUT, ["--cascade: stops the dependents, and --rolling keeps them up"]),
    ("restart base --subtree", BAD_INPUT, ["--subtree: belongs to a rolling restart (add --rolling)"]),
    ("restart base --drain-timeout 5s", BAD_INPUT, ["--drain-timeout: belongs to a rolling restart"]),
    ("restart base --rolling --drain-timeout 5x", BAD_INPUT, ["--drain-timeout: '5x' is not a duration"]),
    ("drain", BAD_INPUT, ["Missing argument"]),
    ("drain nosuch", BAD_INPUT, ["unknown service 'nosuch'"]),
    ("undrain base@n9", BAD_INPUT, ["base has no instance on node 'n9'"]),
    ("recover", BAD_INPUT, ["Missing argument"]),
    ("restart ../../etc/passwd", BAD_INPUT, ["unknown service '../../etc/passwd'"]),
    ("plan up nosuch", BAD_INPUT, ["unknown service 'nosuch'"]),
    ("plan sideways", BAD_INPUT, ["No such command 'sideways'"]),
    ("explain nosuch", BAD_INPUT, ["unknown service 'nosuch'"]),
    ("services base nosuch", BAD_INPUT, ["unknown service 'nosuch'"]),
    ("logs nosuch", BAD_INPUT, ["unknown service 'nosuch'"]),
    ("logs base", BAD_INPUT, ["base has no output on this machine", "--state-dir"]),
    ("logs base@n7", BAD_INPUT, ["base has no instance on node 'n7'"]),
    ("logs base -n -3", BAD_INPUT, ["-3 is not in the range"]),
    ("events -n many", BAD_INPUT, ["'many' is not a valid integer"]),
    ("ops show nosuch", BAD_INPUT, ["there is no operation 'nosuch'", "citadel ops list"]),
    ("ops show ../leader", BAD_INPUT, ["there is no operation '../leader'"]),
    ("ops cancel nosuch", BAD_INPUT, ["there is no operation 'nosuch'"]),
    ("ops cancel a/b/c", BAD_INPUT, ["there is no operation 'a/b/c'"]),
    ("deps add top nosuch", BAD_INPUT, ["unknown service 'nosuch'"]),
    ("deps add top top", BAD_INPUT, ["top cannot depend on itself"]),
    ("deps add top base --condition completed", BAD_INPUT, ["base is not a oneshot: it never completes"]),
    ("deps add top base --condition running", BAD_INPUT, ["'running' is not one of", "healthy"]),
    ("deps add top base --min-instances 2", BAD_INPUT, ["--min-instances: base has 1 instance"]),
    ("deps add top base --min-instances 0", BAD_INPUT, ["0 is not in the range"]),
    ("deps add base top", REFUSED, ["makes a cycle: base → top → middle → base"]),
    ("deps remove base top", BAD_INPUT, ["there is no edge base → top"]),
    ("deps remove .. top", BAD_INPUT, ["there is no edge .. → top"]),
    ("render nosuch", BAD_INPUT, ["unknown service 'nosuch'"]),
    ("render --node n9", BAD_INPUT, ["no service runs on node 'n9'", "n1"]),
    ("apply nosuch.yaml", BAD_INPUT, ["nosuch.yaml: no such file"]),
    ("validate .", BAD_INPUT, ["Is a directory"]),
    ("status -o xml", BAD_INPUT, ["'xml' is not one of"]),
    ("status --stack Not_A_Label", BAD_INPUT, ["--stack: 'Not_A_Label' is not a valid name"]),
    ("status --config nosuch.yaml", BAD_INPUT, ["nosuch.yaml: no such file"]),
    ("status --consul-token-file nosuch", BAD_INPUT, ["consul.token_file", "No such file"]),
    ("status --consul-address http://[::", BAD_INPUT, ["write host:port"]),
    ("status surplus", BAD_INPUT, ["unexpected extra argument"]),
    ("completion tcsh", BAD_INPUT, ["'tcsh' is not one of"]),
    ("up --stack nothing-there", REFUSED, ["stack 'nothing-there' has no services", "citadel apply FILE"]),
]


@pytest.mark.parametrize(("line", "status", "said"), TABLE, ids=[line for line, _, _ in TABLE])
def test_bad_input_is_refused_and_leaves_nothing_behind(
    cli: CommandLine, line: str, status: int, said: list[str]
) -> None:
    cli.apply(THREE)
    cli.monkeypatch.chdir(cli.folder)
    before = cli.kv()
    result = cli(*line.split(" "))
    assert result.status == status, result
    for text in said:
        assert text in result.err, result
    assert "Traceback" not in result.err
    assert result.out == ""
    assert cli.kv() == before


def test_a_bad_stack_file_is_refused_whole(cli: CommandLine) -> None:
    path = cli.write("services:\n  a: {type: t, nodes: [n1], backend: {command: [x]}, depends_on: [b]}\n  B: {}\n")
    result = cli("apply", str(path))
    assert result.status == 2, result
    assert "there is no service 'b'" in result.err
    assert "'B'" in result.err, "every problem is reported, not only the first"
    assert cli.own_kv() == {}


def test_bad_settings_are_refused_all_at_once(cli: CommandLine) -> None:
    cli.monkeypatch.setenv("ORCHESTRATOR_STARTUP_TIMEOUT", "soon")
    cli.monkeypatch.setenv("ORCHESTRATOR_RECOVERY_ATTEMPTS", "-1")
    result = cli("status")
    assert result.status == 2
    assert "ORCHESTRATOR_STARTUP_TIMEOUT" in result.err
    assert "ORCHESTRATOR_RECOVERY_ATTEMPTS" in result.err


def test_two_stacks_and_no_word_which_is_meant(cli: CommandLine) -> None:
    cli.apply(THREE)
    cli.consul.request("PUT", "/v1/kv/citadel/zz-other/specs/x", b"{}")
    try:
        cli.monkeypatch.delenv("CITADEL_STACK")
        result = cli("status")
        assert result.status == 4
        assert "there are several stacks" in result.err
        assert "--stack or CITADEL_STACK" in result.err
        assert cli.ok("status", "--stack", cli.stack).out.startswith(cli.stack)
    finally:
        cli.consul.request("DELETE", "/v1/kv/citadel/zz-other/?recurse")


def test_an_operation_that_cannot_be_read_is_named_and_not_a_traceback(cli: CommandLine) -> None:
    cli.apply(THREE)
    cli.put("operations/20250101T000000000000-aaaa", b"not json")
    result = cli("ops", "show", "20250101T000000000000-aaaa")
    assert result.status == 2
    assert f"{cli.prefix}operations/20250101T000000000000-aaaa: is not JSON" in result.err
