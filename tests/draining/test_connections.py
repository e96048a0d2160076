"""Counting the connections of a service, as the kernel has them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from citadel_consul.agent.connections import established


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A server on loopback that accepts nobody by itself."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((request.param, 0))
        server.listen(8)
        yield server


def test_each_client_counts_once_until_it_leaves(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert established(port) == 0
    with contextlib.ExitStack() as clients:
        for _ in range(3):
            clients.enter_context(socket.create_connection(listener.getsockname()[:2]))
        assert established(port) == 3  # nobody has accepted them yet
        accepted = [listener.accept()[0] for _ in range(3)]
        assert established(port) == established(port, os.getpid()) == 3
    for connection in accepted:
        connection.close()
    assert established(port) == 0


def test_a_port_on_which_nobody_listens_tells_nothing(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    assert established(port) is None


def test_tables_that_cannot_be_read_tell_nothing(listener: socket.socket, tmp_path: Path) -> None:
    assert established(listener.getsockname()[1], 1, tmp_path) is None


def test_a_dual_stack_listener_has_its_clients_in_both_tables(tmp_path: Path) -> None:
    """As written by a kernel: the listener and one client in tcp6, another client in tcp."""
    folder = tmp_path / "7" / "net"
    folder.mkdir(parents=True)
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    zero = "00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0"
    six = "0000000000000000FFFF00000100007F"
    (folder / "tcp").write_text(
        head
        + f"   0: 0100007F:1F90 0100007F:C350 01 {zero}\n"
        + f"   1: 0100007F:C350 0100007F:1F90 01 {zero}\n"  # the client's own end
        + f"   2: 0100007F:1F90 0100007F:C351 06 {zero}\n"  # TIME_WAIT
    )
    (folder / "tcp6").write_text(
        head + f"   0: {'0' * 32}:1F90 {'0' * 32}:0000 0A {zero}\n   1: {six}:1F90 {six}:C352 01 {zero}\n"
    )
    assert established(0x1F90, 7, tmp_path) == 2
