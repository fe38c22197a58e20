"""A web server that takes whatever it is sent, for what tells others: webhooks, gateways, collectors."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Request:
    """What has come."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@contextmanager
def receiving(*answers: int, **headers: str) -> Iterator[tuple[str, list[Request]]]:
    """Its URL, and each request in order.

    answers: statuses, one after the other, then 200 for all. headers: of each answer, _ standing for -.
    """
    taken: list[Request] = []
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.append(Request(self.command, self.path, dict(self.headers), body))
            self.send_response(left.pop(0) if left else 200)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", taken
        server.shutdown()
