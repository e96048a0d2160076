"""A service for tests, as small and quick as Python allows: ``tiny_service.py PORT DELAY LEDGER``.

It writes each of its lives into a ledger, listens after a delay, and ends on SIGTERM.
"""

import os
import signal
import socket
import sys
import time


def main() -> None:
    port, delay, ledger = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    line = f"{time.time()} {os.getpid()} {os.environ.get('CITADEL_GENERATION', '')}\n".encode()
    descriptor = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, line)
    os.close(descriptor)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    time.sleep(delay)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    while True:
        listener.accept()[0].close()


main()
