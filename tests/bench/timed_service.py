"""A service that listens a given time after its exec, however long Python took to start.

``timed_service.py PORT SECONDS LEDGER``: the ledger gets a line with the moment at which it listens (unix seconds).
"""

import os
import signal
import socket
import sys
import time

with open("/proc/self/stat", "rb") as stat:  # noqa: PTH123  # pathlib takes 10 ms to import
    TICKS = int(stat.read().rpartition(b")")[2].split()[19])
TICK = 1 / os.sysconf("SC_CLK_TCK")


def main() -> None:
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    # The kernel tells the time of the exec in ticks, rounded down: half a tick is the mean error.
    executed = TICKS * TICK + TICK / 2
    time.sleep(max(0.0, executed + seconds - time.clock_gettime(time.CLOCK_BOOTTIME)))
    listener.listen(64)
    ledger = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(ledger, f"{time.time()}\n".encode())
    os.close(ledger)
    while True:
        listener.accept()[0].close()


main()
