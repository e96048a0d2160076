"""A small store for drills: ``drill_service.py PORT FOLDER [WORD]...``.

``GET /health`` answers 200; ``PUT`` and ``GET /data/NAME`` keep and give. Words: ``forgetful`` keeps data in memory
alone, ``deaf`` ignores SIGTERM, ``lost`` has its health at another path.
"""

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, FOLDER, WORDS = int(sys.argv[1]), Path(sys.argv[2]), set(sys.argv[3:])
MEMORY: dict[str, bytes] = {}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.removeprefix("/data/")
        if self.path == "/health":
            self._answer(404 if "lost" in WORDS else 200, b"well")
        elif "forgetful" in WORDS:
            self._answer(200 if name in MEMORY else 404, MEMORY.get(name, b""))
        else:
            kept = FOLDER / f"{name}.data"
            self._answer(200 if kept.exists() else 404, kept.read_bytes() if kept.exists() else b"")

    def do_PUT(self) -> None:
        name = self.path.removeprefix("/data/")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "forgetful" in WORDS:
            MEMORY[name] = body
        else:
            (FOLDER / f"{name}.data").write_bytes(body)
        self._answer(200, b"kept")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


def main() -> None:
    with (FOLDER / "store.lives").open("a") as ledger:
        ledger.write(f"{time.time()} {os.getpid()} -\n")
    if "deaf" in WORDS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    server.serve_forever()


main()
