"""Settings: what wins, where it came from, how secrets are kept, and what is refused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from citadel_consul.config import options
from citadel_consul.config.addresses import HostPort
from citadel_consul.config.options import LogFormat, LogLevel
from citadel_consul.config.precedence import MASK
from citadel_consul.config.settings import RecoverySettings, Settings, load_settings
from citadel_consul.errors import InvalidInput, Problem

SEED = {
    "ORCHESTRATOR_LOG_LEVEL": "DEBUG",
    "ORCHESTRATOR_HEALTH_CHECK_INTERVAL": "15",
    "ORCHESTRATOR_STARTUP_TIMEOUT": "200",
    "ORCHESTRATOR_SHUTDOWN_TIMEOUT": "2m",
    "ORCHESTRATOR_RECOVERY_ENABLED": "false",
    "ORCHESTRATOR_RECOVERY_ATTEMPTS": "4",
    "ORCHESTRATOR_RECOVERY_DELAY": "500ms",
    "ORCHESTRATOR_SERVICE_DISCOVERY_ENABLED": "no",
    "ORCHESTRATOR_METRICS_ENABLED": "0",
    "ORCHESTRATOR_NOTIFICATION_ENABLED": "off",
}


@pytest.fixture(autouse=True)
def default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may have a configuration file of its own."""
    default = dataclasses.replace(options.CONFIG, default=tmp_path / "orchestrator.yaml")
    monkeypatch.setattr("citadel_consul.config.precedence.CONFIG", default)


def write(folder: Path, text: str) -> Path:
    path = folder / "orchestrator.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def origin(settings: Settings, name: str) -> tuple[str, str]:
    return next((row.value, row.origin) for row in settings.origins() if row.name == name)


def test_without_anything_given_the_defaults_hold() -> None:
    settings = load_settings({}, {"HOME": "/home/u"})
    assert settings.stack is None
    assert settings.log_level is LogLevel.INFO
    assert settings.log_format is LogFormat.TEXT
    assert settings.startup_timeout_seconds == 300
    assert settings.shutdown_timeout_seconds == 120
    assert settings.health_check_interval_seconds == options.DEFAULT_CHECK_INTERVAL_SECONDS
    assert settings.recovery == RecoverySettings(True, 3, 60.0, 5, 300.0, 0.5, 3, 60.0)
    assert settings.notification_delay_seconds == 1.0
    assert settings.api.bind == HostPort("127.0.0.1", 8000)
    assert settings.consul.address == "127.0.0.1:8500"
    assert settings.consul.read_token() is None
    assert (settings.leader_check_ttl_seconds, settings.session_ttl_seconds) == (2, 10)
    assert {row.origin.partition(" ")[0] for row in settings.origins()} == {"default"}


def test_the_variables_of_the_site_are_read() -> None:
    settings = load_settings({}, SEED)
    assert settings.log_level is LogLevel.DEBUG
    assert settings.health_check_interval_seconds == 15
    assert settings.startup_timeout_seconds == 200
    assert settings.shutdown_timeout_seconds == 120
    assert (settings.recovery.enabled, settings.recovery.attempts, settings.recovery.delay_seconds) == (False, 4, 0.5)
    assert not settings.service_discovery_enabled
    assert not settings.metrics_enabled
    assert not settings.notification_enabled
    assert {f"environment {name}" for name in SEED} <= {row.origin for row in settings.origins()}


def test_what_is_too_much_can_be_set(tmp_path: Path) -> None:
    path = write(tmp_path, "recovery: {flap_limit: 3, brake_share: 60%, brake_window: 90s}\nnotification: {delay: 0}\n")
    environ = {"CITADEL_RECOVERY_BRAKE_SERVICES": "4", "CITADEL_RECOVERY_FLAP_HALF_LIFE": "10s"}
    settings = load_settings({}, environ, path)
    assert settings.recovery == RecoverySettings(True, 3, 60.0, 3, 10.0, 0.6, 4, 90.0)
    assert settings.notification_delay_seconds == 0.0
    assert origin(settings, "recovery.brake_share") == ("60%", f"file {path}:1")


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "recovery:\n  attempts: 7\n  delay: 7s\n  enabled: false\n")
    environ = {"ORCHESTRATOR_RECOVERY_ATTEMPTS": "8", "ORCHESTRATOR_RECOVERY_DELAY": "8"}
    settings = load_settings({"recovery_attempts": 9, "stack": None}, environ, path)
    assert origin(settings, "recovery.attempts") == ("9", "flag --recovery-attempts")
    assert origin(settings, "recovery.delay") == ("8s", "environment ORCHESTRATOR_RECOVERY_DELAY")
    assert origin(settings, "recovery.enabled") == ("false", f"file {path}:4")
    assert origin(settings, "leader.check_ttl") == ("2s", "default")
    assert origin(settings, "config") == (str(path), "flag --config")


def test_flags_may_be_given_by_name_and_typed() -> None:
    settings = load_settings({"metrics.enabled": False, "leader.check_ttl": 1.0, "state_dir": Path("/s")}, {})
    assert not settings.metrics_enabled
    assert settings.leader_check_ttl_seconds == 1
    assert settings.state_dir == Path("/s")


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load_settings({}, {"ORCHESTRATOR_STARTUP_TIMEOUT": "", "CONSUL_HTTP_SSL": ""}) == load_settings({}, {})


def test_every_key_of_the_file_reaches_its_setting(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "stack: shop\nnode: n1\nnode_address: 10.0.0.1\nstate_dir: state\ntemplates: ./t\n"
        "log: {level: warn, format: json}\nhealth: {check_interval: 5s}\n"
        "operations: {startup_timeout: 1m, shutdown_timeout: 30, drain_timeout: 5}\n"
        "recovery: {enabled: true, attempts: 2, delay: 1s, flap_limit: 4, flap_half_life: 1m, brake_share: 70,\n"
        "  brake_services: 5, brake_window: 30s}\n"
        "discovery: {enabled: false}\nmetrics: {enabled: false}\n"
        "notification: {enabled: false, delay: 2s, receivers: [{name: oncall, command: [page]}]}\n"
        "leader: {check_ttl: 1s, session_ttl: 20s}\n"
        "api: {bind: '[::1]:0', hosts: [Ops.example.com, box], tls_cert: c.pem, tls_key: /k.pem,\n"
        "  allow_insecure_bind: true}\n"
        "agent: {bind: 'n1.example:0'}\n"
        "consul: {address: 'unix:///run/consul.sock', token: t, token_file: token, ssl: true, ssl_verify: false,\n"
        "  cacert: ca.pem, capath: cas, client_cert: cc.pem, client_key: ck.pem, tls_server_name: server.dc1.consul}\n",
    )
    settings = load_settings({}, {}, path)
    assert all(row.origin.startswith("file ") for row in settings.origins() if row.name != "config")
    assert settings.log_level is LogLevel.WARNING
    assert settings.api.bind == HostPort("::1", 0)
    assert settings.api.hosts == ("ops.example.com", "box")
    assert origin(settings, "api.hosts")[0] == "ops.example.com, box"
    assert settings.consul.ssl
    assert not settings.consul.ssl_verify
    assert origin(settings, "notification.receivers")[0] == "oncall (command page)"


def test_relative_paths_in_the_file_mean_its_folder(tmp_path: Path) -> None:
    path = write(tmp_path, "state_dir: state\napi: {tls_cert: c.pem, tls_key: /k.pem}\n")
    settings = load_settings({}, {"CITADEL_TEMPLATES": "t"}, path)
    assert settings.state_dir == tmp_path / "state"
    assert settings.api.tls_cert == tmp_path / "c.pem"
    assert settings.api.tls_key == Path("/k.pem")
    assert settings.template_dir == Path.cwd() / "t"


def test_the_file_is_found_by_its_variable(tmp_path: Path) -> None:
    path = write(tmp_path, "stack: shop\n")
    settings = load_settings({}, {"ORCHESTRATOR_CONFIG_PATH": str(path)})
    assert settings.stack == "shop"
    assert settings.config_path == path


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    assert load_settings({}, {}, write(tmp_path, "# nothing yet\n")).stack is None


def test_the_default_file_may_be_missing_and_is_read_if_it_is_there(tmp_path: Path) -> None:
    assert load_settings({}, {}).stack is None
    write(tmp_path, "stack: shop\n")
    assert load_settings({}, {}).stack == "shop"


@pytest.mark.parametrize(
    ("host", "label"),
    [("HX-ORC-01.citadel.local", "hx-orc-01"), ("my_host", "my-host"), ("___", "localhost"), ("a" * 80, "a" * 63)],
)
def test_the_node_is_the_host_names_first_label(host: str, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert load_settings({}, {}).node == label


@pytest.mark.parametrize(
    ("uid", "environ", "folder"),
    [
        (0, {"XDG_STATE_HOME": "/x"}, "/var/lib/citadel"),
        (1000, {"XDG_STATE_HOME": "/x"}, "/x/citadel"),
        (1000, {"XDG_STATE_HOME": "x", "HOME": "/home/u"}, "/home/u/.local/state/citadel"),
        (1000, {"HOME": "/home/u"}, "/home/u/.local/state/citadel"),
    ],
)
def test_the_state_folder_suits_the_user(
    uid: int, environ: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)
    assert load_settings({}, environ).state_dir == Path(folder)


def test_a_token_is_shown_nowhere() -> None:
    settings = load_settings({}, {"CONSUL_HTTP_TOKEN": "s3cret"})
    assert settings.consul.token == "s3cret"
    assert "s3cret" not in repr(settings) + str(settings.origins())
    assert origin(settings, "consul.token") == (MASK, "environment CONSUL_HTTP_TOKEN")


def test_a_token_is_not_taken_from_a_command_line() -> None:
    with pytest.raises(InvalidInput) as caught:
        load_settings({"consul_token": "s3cret"}, {})
    assert caught.value.problems[0].place == "flag --consul-token"
    assert "s3cret" not in str(caught.value)


def test_a_bad_token_is_not_quoted_in_the_problem() -> None:
    with pytest.raises(InvalidInput) as caught:
        load_settings({}, {"CONSUL_HTTP_TOKEN": "s3cret\nX-Evil: 1"})
    assert "s3cret" not in str(caught.value)


def test_the_token_file_wins_over_a_token_given_in_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n", encoding="utf-8")
    environ = {"CONSUL_HTTP_TOKEN": "direct", "CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "token")}
    assert load_settings({}, environ).consul.read_token() == "from-file"


def test_an_empty_token_file_leaves_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" \n", encoding="utf-8")
    environ = {"CONSUL_HTTP_TOKEN": "direct", "CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "token")}
    assert load_settings({}, environ).consul.read_token() == "direct"


def test_a_nearer_token_wins_over_a_token_file(tmp_path: Path) -> None:
    path = write(tmp_path, "consul: {token_file: no-such-file}\n")
    settings = load_settings({}, {"CONSUL_HTTP_TOKEN": "direct"}, path)
    assert settings.consul.read_token() == "direct"
    assert origin(settings, "consul.token_file") == ("", f"file {path}:1, set aside: consul.token is nearer")


def test_a_token_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    settings = load_settings({}, {"CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "none")})
    with pytest.raises(InvalidInput, match="none cannot be read: No such file"):
        settings.consul.read_token()


@pytest.mark.parametrize("word", ["1", "t", "T", "TRUE", "true", "True"])
def test_booleans_of_consul_are_read_as_consul_reads_them(word: str) -> None:
    assert load_settings({}, {"CONSUL_HTTP_SSL": word}).consul.ssl


@pytest.mark.parametrize("bind", ["127.0.0.1:8000", "127.8.0.1:1", "[::1]:8000", "localhost:8000"])
def test_loopback_needs_no_tls(bind: str) -> None:
    assert str(load_settings({"api_bind": bind}, {}).api.bind) == bind


@pytest.mark.parametrize(
    "more",
    [{"api_allow_insecure_bind": True}, {"api_tls_cert": "c.pem", "api_tls_key": "k.pem"}],
    ids=["allowed", "with TLS"],
)
def test_other_addresses_need_tls_or_permission(more: dict[str, object]) -> None:
    assert load_settings({"api_bind": "192.168.10.30:8000", **more}, {}).api.bind.host == "192.168.10.30"


def test_settings_need_neither_pydantic_nor_yaml() -> None:
    script = (
        "import sys; from citadel_consul.config.settings import load_settings; load_settings({}, {});"
        "sys.exit(any(name in sys.modules for name in ('pydantic', 'yaml', 'jinja2', 'httpx')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


class Broken(NamedTuple):
    """A setting that is wrong, and what is said of it."""

    where: dict[str, object]
    place: str
    message: str
    remedy: str


TOP = "use true or false"
BROKEN_ENVIRONMENT = [
    Broken({"ORCHESTRATOR_LOG_LEVEL": "LOUD"}, "", "'LOUD' is not one of DEBUG, INFO", "use one of: DEBUG"),
    Broken({"ORCHESTRATOR_LOG_LEVEL": "debgu"}, "", "'debgu' is not one of", "did you mean DEBUG?"),
    Broken({"ORCHESTRATOR_STARTUP_TIMEOUT": "soon"}, "", "'soon' is not a duration", "write it like 250ms"),
    Broken({"ORCHESTRATOR_SHUTDOWN_TIMEOUT": "-5"}, "", "'-5' is not a duration", "write it like 250ms"),
    Broken({"ORCHESTRATOR_HEALTH_CHECK_INTERVAL": "100ms"}, "", "100ms is too short", "use 1s or more"),
    Broken({"ORCHESTRATOR_RECOVERY_ENABLED": "maybe"}, "", "'maybe' is neither true nor false", TOP),
    Broken({"ORCHESTRATOR_RECOVERY_ATTEMPTS": "0"}, "", "'0' is not a whole number of 1 or more", "like 3"),
    Broken({"ORCHESTRATOR_RECOVERY_ATTEMPTS": "3.5"}, "", "'3.5' is not a whole number", "like 3"),
    Broken({"ORCHESTRATOR_RECOVERY_DELAY": "2d"}, "", "2d is too long", "use 1d or less"),
    Broken({"CITADEL_STACK": "My Stack"}, "", "'My Stack' is not a valid name", "lower-case letters"),
    Broken({"CITADEL_NODE": "n1.example"}, "", "'n1.example' is not a valid name", "lower-case letters"),
    Broken({"CITADEL_NODE_ADDRESS": "10.0.0.1:80"}, "", "'10.0.0.1:80' is not a host name", "192.168.10.30"),
    Broken({"CITADEL_API_BIND": "8000"}, "", "'8000' is not host:port", "host:port"),
    Broken({"CITADEL_API_BIND": "127.0.0.1:99999"}, "", "'99999' is not a port", "host:port"),
    Broken({"CITADEL_API_HOSTS": "ops.example.com, a b"}, "", "'a b' is not a host name", "write it like"),
    Broken({"CITADEL_API_BIND": "0.0.0.0:8000"}, "", "0.0.0.0:8000 is not loopback", "api.allow_insecure_bind"),
    Broken({"CITADEL_API_BIND": "[::]:8000"}, "", "[::]:8000 is not loopback", "set api.tls_cert and api.tls_key"),
    Broken({"CITADEL_API_BIND": "box.lan:1"}, "", "box.lan:1 is not loopback", "api.allow_insecure_bind"),
    Broken({"CITADEL_API_TLS_KEY": "k"}, "", "api.tls_key is of no use without api.tls_cert", "set api.tls_cert"),
    Broken({"CITADEL_LEADER_SESSION_TTL": "5s"}, "", "5s is too short", "use 10s or more"),
    Broken({"CITADEL_LEADER_CHECK_TTL": "10s"}, "", "shorter than the session's (10s)", "raise leader.session_ttl"),
    Broken({"CITADEL_LOG_FORMAT": "xml"}, "", "'xml' is not one of text, json", "use one of: text, json"),
    Broken({"CONSUL_HTTP_SSL": "yes"}, "", "'yes' is neither true nor false", TOP),
    Broken({"CONSUL_HTTP_SSL_VERIFY": "fasle"}, "", "'fasle' is neither true nor false", TOP),
    Broken({"CONSUL_HTTP_ADDR": "tcp://a:1"}, "", "tcp:// is not a scheme of Consul's", "127.0.0.1:8500"),
    Broken({"CONSUL_HTTP_ADDR": "http://u:p@a:1"}, "", "is not an address of Consul's", "127.0.0.1:8500"),
    Broken({"CONSUL_CLIENT_CERT": "c"}, "", "is of no use without consul.client_key", "set consul.client_key"),
]


@pytest.mark.parametrize("case", BROKEN_ENVIRONMENT, ids=lambda case: "=".join(*case.where.items()))
def test_a_broken_variable_is_explained(case: Broken) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_settings({}, {name: str(value) for name, value in case.where.items()})
    (problem,) = caught.value.problems
    assert problem.place == f"environment {next(iter(case.where))}"
    assert case.message in problem.message
    assert case.remedy in problem.remedy


BROKEN_FILES = [
    ("stak: shop\n", "1: stak", "unknown key", "did you mean stack?"),
    ("recovery:\n  attemts: 3\n", "2: recovery.attemts", "unknown key", "did you mean attempts?"),
    ("log_level: INFO\n", "1: log_level", "unknown key", "write `level` under `log`"),
    ("ORCHESTRATOR_LOG_LEVEL: INFO\n", "1: ORCHESTRATOR_LOG_LEVEL", "unknown key", "write `level` under `log`"),
    ("CITADEL_STACK: x\n", "1: CITADEL_STACK", "unknown key", "write `stack`"),
    ("\nrecovery: true\n", "2: recovery", "has to hold settings", "write `recovery:`"),
    ("recovery: {delay: [1]}\n", "1: recovery.delay", "a list is not a duration", "write it like 250ms"),
    ("recovery: {enabled: 2}\n", "1: recovery.enabled", "'2' is neither true nor false", TOP),
    ("recovery: {brake_share: 0.5}\n", "1: recovery.brake_share", "'0.5' is not a share in whole", "from 1% to 100%"),
    ("recovery: {brake_share: 101%}\n", "1: recovery.brake_share", "'101%' is not a share in whole", "from 1% to 100%"),
    ("recovery: {brake_services: 1}\n", "1: recovery.brake_services", "1 is out of range", "use 2 or more"),
    ("recovery: {flap_limit: 21}\n", "1: recovery.flap_limit", "21 is out of range", "use 2 to 20"),
    ("node: {}\n", "1: node", "is not text", "quote the value"),
    ("node: true\n", "1: node", "is not text", "quote the value"),
    ("node:\n", "1: node", "has no value", "give it one, or remove the key"),
    ("node: ''\n", "1: node", "is empty", "give it a value, or remove it"),
    ("node: a\nnode: b\n", "2: node", "given twice, first on line 1", "keep one of the two"),
    ("config: x.yaml\n", "1: config", "unknown key", ""),
    ("api:\n  bind: 0.0.0.0:80\n", "2: api.bind", "is not loopback", "set api.tls_cert"),
    ("- a\n", "1", "has to hold a mapping", "`key: value`"),
    ("a: [\n", "2", "not valid YAML", ""),
]


@pytest.mark.parametrize(("text", "place", "message", "remedy"), BROKEN_FILES, ids=[case[1] for case in BROKEN_FILES])
def test_a_broken_file_is_explained(tmp_path: Path, text: str, place: str, message: str, remedy: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InvalidInput) as caught:
        load_settings({}, {}, path)
    (problem,) = caught.value.problems
    assert problem.place == f"{path}:{place}"
    assert message in problem.message
    assert remedy in problem.remedy


def test_a_named_file_has_to_exist(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    for how in ({"ORCHESTRATOR_CONFIG_PATH": str(path)}, {}):
        with pytest.raises(InvalidInput) as caught:
            load_settings({}, how, None if how else path)
        assert caught.value.problems == (Problem(str(path), "no such file", "check the path"),)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Is a directory"):
        load_settings({}, {}, tmp_path)


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        load_settings({"stak": "x"}, {})
    assert caught.value.problems == (Problem("flag --stak", "no such setting", "did you mean stack?"),)


def test_all_problems_of_all_origins_are_reported_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "nodes: n1\nrecovery: {attempts: none}\n")
    with pytest.raises(InvalidInput) as caught:
        load_settings({"api_bind": "x"}, {"CONSUL_HTTP_SSL": "si", "ORCHESTRATOR_RECOVERY_ATTEMPTS": "9"}, path)
    assert {problem.place for problem in caught.value.problems} == {
        f"{path}:1: nodes",
        f"{path}:2: recovery.attempts",  # wrong, although the environment overrides it
        "flag --api-bind",
        "environment CONSUL_HTTP_SSL",
    }


def test_names_variables_and_flags_of_settings_are_unique() -> None:
    everything = (options.CONFIG, *options.ALL)
    for field in ("name", "variable", "key"):
        values = [getattr(setting, field) for setting in everything]
        assert len(set(values)) == len(values)
