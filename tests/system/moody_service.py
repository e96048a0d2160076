"""A service with moods, for tests: ``moody_service.py PORT LEDGER MOOD_FILE``.

It answers each HTTP request as its mood file says at that moment: nothing or ``well`` (200), ``ill`` (503), ``warning``
(429), ``hang`` (the connection is accepted and never answered), ``slow SECONDS``, ``follow PORT`` (200 while somebody
listens there, else 503). It writes each of its lives, and each SIGHUP, into a ledger, and ends on SIGTERM.
"""

import os
import signal
import socket
import sys
import threading
import time

HANG_SECONDS = 3600.0
BIND_SECONDS = 5.0


def append(path: str, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def status_for(mood: str) -> int:
    word, _, argument = mood.partition(" ")
    if word == "hang":
        time.sleep(HANG_SECONDS)
    if word == "slow":
        time.sleep(float(argument))
    if word == "follow":
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return 200 if probe.connect_ex(("127.0.0.1", int(argument))) == 0 else 503
    return {"ill": 503, "warning": 429}.get(word, 200)


def answer(connection: socket.socket, mood_file: str) -> None:
    with connection:
        try:
            connection.recv(65536)
            try:
                with open(mood_file) as file:  # noqa: PTH123  # quick to start: no pathlib
                    mood = file.read().strip()
            except FileNotFoundError:
                mood = ""
            head = f"HTTP/1.1 {status_for(mood)} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
        except OSError:
            return


def listen(port: int) -> socket.socket:
    """Listen. Somebody's outgoing connection may have the port at the moment: it is from the ephemeral range."""
    end = time.monotonic() + BIND_SECONDS
    while True:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            listener.listen(64)
            return listener


def main() -> None:
    port, ledger, mood_file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGHUP, lambda *_: append(f"{ledger}.reloads", f"{os.getpid()}\n"))
    append(ledger, f"{time.time()} {os.getpid()} {os.environ.get('CITADEL_GENERATION', '0')}\n")
    listener = listen(port)
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0], mood_file), daemon=True).start()


main()
