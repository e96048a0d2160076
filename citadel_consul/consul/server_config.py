"""The configuration of an embedded Consul server, for every version that citadel runs on."""

from __future__ import annotations

from citadel_consul.consul.ports import LOOPBACK, OFF, Ports

Config = dict[str, object]


def server_config(
    release: tuple[int, int], node: str, ports: Ports, *, ui: bool, dashboard: str | None = None
) -> Config:
    """What a lone server on loopback is told, as Consul's configuration file has it.

    ``dashboard`` is the URL to which each service in the UI links; it may hold ``{{Service.Name}}``. Consul knows such
    links from 1.9 on; an older one is not told of it.
    """
    config: Config = {
        "server": True,
        "bootstrap_expect": 1,
        "node_name": node,
        "bind_addr": LOOPBACK,
        "advertise_addr": LOOPBACK,
        "client_addr": LOOPBACK,
        # A lone server waits one heartbeat time-out for other members before it elects itself: 1 s at factor 1, and 5 s
        # at the default.
        "performance": {"raft_multiplier": 1},
        # Its peers would have to forget a server that leaves, and a lone one has to find its data again.
        "leave_on_terminate": False,
        "skip_leave_on_interrupt": True,
        "enable_local_script_checks": True,
        # All clients have one address here, and a waiting query counts for its client even after that was killed.
        "limits": {"http_max_conns_per_client": 2000},
        # The update check asks a server of HashiCorp's, and the machine may have no way out.
        "disable_update_check": True,
        "telemetry": {"prometheus_retention_time": "10m", "disable_hostname": True},
        "ports": _ports(release, ports),
    }
    if release >= (1, 9):
        links = {"dashboard_url_templates": {"service": dashboard}} if ui and dashboard is not None else {}
        config["ui_config"] = {"enabled": ui, **links}
    else:
        config["ui"] = ui
    if release >= (1, 14):
        # On by default from there on; both are for meshes of many clusters, and cost time at the start.
        config["peering"] = {"enabled": False}
        config["connect"] = {"enabled": False}
    return config


def _ports(release: tuple[int, int], ports: Ports) -> dict[str, int]:
    numbers = {
        "http": ports.http,
        "dns": ports.dns,
        "grpc": ports.grpc,
        "serf_lan": ports.serf,
        "serf_wan": OFF,
        "server": ports.server,
    }
    if release >= (1, 14):
        # A server would bind 8503 otherwise. Older versions refuse the key.
        numbers["grpc_tls"] = OFF
    return numbers
