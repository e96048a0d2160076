"""A service that takes a given time to be ready and a given time to stop, and costs as little as Python can.

``timed_program.py PORT READY_SECONDS STOP_SECONDS LEDGER``: serve until SIGTERM or SIGINT.
``timed_program.py --probe PORT``: exit status 0 if somebody listens, for health checks.

It listens READY_SECONDS after its exec, however long Python took to start, says READY=1 to a systemd that asked for it
(``NOTIFY_SOCKET``), and exits STOP_SECONDS after the signal. The ledger gets a line for each of these four moments:
"executed", "listening", "stopping" and "exited", the unix time in seconds, and the pid.

It is run with ``-I -S``, and imports only what is built in: no file is looked for but this one.
"""

import _signal  # type: ignore[import-not-found]  # signal itself takes longer to import than all of this
import _socket
import posix
import select
import sys
import time

TICK = 1 / posix.sysconf("SC_CLK_TCK")


def main() -> int:
    if sys.argv[1] == "--probe":
        return int(_socket.socket().connect_ex(("127.0.0.1", int(sys.argv[2]))) != 0)
    port, ready, stop = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - begun()
    deadline = time.monotonic() - age + ready
    note("executed", time.time() - age)
    wake, told = posix.pipe()
    for number in (_signal.SIGTERM, _signal.SIGINT):
        _signal.signal(number, lambda *_: posix.write(told, b"!"))
    listener = _socket.socket()
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    if not select.select([wake], [], [], max(0.0, deadline - time.monotonic()))[0]:
        listener.listen(64)
        note("listening", time.time())
        tell_systemd()
        while wake not in select.select([listener.fileno(), wake], [], [])[0]:
            posix.close(listener._accept()[0])  # type: ignore[attr-defined]
    note("stopping", time.time())
    listener.close()
    time.sleep(stop)
    note("exited", time.time())
    return 0


def begun() -> float:
    """When this process was made, by the clock that counts from the boot.

    The kernel tells it in ticks, rounded down: half a tick is the mean error.
    """
    stat = posix.open("/proc/self/stat", posix.O_RDONLY)
    fields = posix.read(stat, 4096).rpartition(b")")[2].split()
    posix.close(stat)
    return int(fields[19]) * TICK + TICK / 2


def note(what: str, at: float) -> None:
    ledger = posix.open(sys.argv[4], posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o644)
    posix.write(ledger, f"{what} {at:.6f} {posix.getpid()}\n".encode())
    posix.close(ledger)


def tell_systemd() -> None:
    path = posix.environ.get(b"NOTIFY_SOCKET", b"")
    if path:
        sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        sender.sendto(b"READY=1", b"\0" + path[1:] if path.startswith(b"@") else path)
        sender.close()


posix._exit(main())
