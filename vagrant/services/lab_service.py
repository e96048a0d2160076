#!/usr/bin/env python3
"""A service of the lab: answers over HTTP, and finds what it needs by Consul DNS alone.

    NAME=api-gateway ADDRESS=10.77.0.11 PORT=8080 NEEDS="redis:6379 embedding-service:8082" lab_service.py

GET /health says that this process serves. GET / walks the dependencies, each looked up as ``<name>.service.consul`` at
that moment: HTTP services are asked the same, redis is sent a PING. The answer names who served on which node, so that
it shows the path a request took through the lab; it is 200 if all of it answered and 503 if not.
"""

import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER_SECONDS = 3.0
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask_redis(host, port):
    with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
        connection.sendall(b"PING\r\n")
        answer = connection.recv(64)
    if not answer.startswith(b"+PONG"):
        raise OSError(f"redis answers {answer!r}")
    return {"answer": "PONG"}


def ask_http(host, port):
    try:
        with opener.open(f"http://{host}:{port}/", timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return json.load(error)


def ask(name, port):
    """What the dependency answers, with ``ok`` that says whether it did."""
    host = f"{name}.service.consul"
    try:
        answer = ask_redis(host, port) if name == "redis" else ask_http(host, port)
    except (OSError, ValueError) as error:  # HTTPError and failed look-ups are OSErrors
        return {"ok": False, "error": str(error)}
    return {"ok": True, **answer}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, {"service": self.server.name, "ok": True})
        elif self.path == "/":
            needs = {name: ask(name, port) for name, port in self.server.needs}
            ok = all(need["ok"] for need in needs.values())
            node = socket.gethostname()
            self.answer(200 if ok else 503, {"service": self.server.name, "node": node, "ok": ok, "needs": needs})
        else:
            self.answer(404, {"error": f"no such page: {self.path}"})

    def answer(self, status, body):
        text = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, form, *values):
        if self.path != "/health":  # Consul asks every second
            super().log_message(form, *values)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, name, address, port, needs):
        super().__init__((address, port), Handler)
        self.name = name
        self.needs = needs


def dependency(text):
    name, _, port = text.partition(":")
    return name, int(port)


def main():
    needs = [dependency(text) for text in os.environ.get("NEEDS", "").split()]
    server = Server(os.environ["NAME"], os.environ["ADDRESS"], int(os.environ["PORT"]), needs)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
