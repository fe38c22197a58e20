"""A service that hands out keys of a store for a short time: as a container's endpoint, and as STS.

    with Keymaster(s3.user("next")) as keys:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", keys.url)    # or AWS_ENDPOINT_URL_STS
        keys.access = s3.add_key("next")                                      # from now on, this one
        keys.asked                                                            # how often it was

Each answer is good for less time than botocore wants to have in hand, so that it asks before each
request. What it hands out are plain keys of the store, without a session's token.
"""

from __future__ import annotations

import datetime
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from tests.stores.s3server import Access

LIFETIME = datetime.timedelta(minutes=5)
XML = """<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>
<AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/scorer/x</Arn>
<AssumedRoleId>A:x</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>{AccessKeyId}</AccessKeyId><SecretAccessKey>{SecretAccessKey}</SecretAccessKey>
<SessionToken></SessionToken><Expiration>{Expiration}</Expiration></Credentials>
</{action}Result></{action}Response>"""


def answer_of(access: Access) -> dict[str, str]:
    """A key in the words of AWS."""
    until = datetime.datetime.now(datetime.UTC) + LIFETIME
    named = {"AccessKeyId": access.key, "SecretAccessKey": access.secret}
    return named | {"Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ")}


class Keymaster:
    """Serves while it is entered."""

    def __init__(self, access: Access) -> None:
        self.access, self.asked = access, 0

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(json.dumps({"Token": "", **master.hand_out()}))

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self._answer(XML.format(action=form["Action"][0], **master.hand_out()))

            def _answer(self, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        master = self
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def hand_out(self) -> dict[str, str]:
        """The key of now."""
        self.asked += 1
        return answer_of(self.access)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
