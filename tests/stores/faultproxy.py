"""A proxy in front of an S3 store that makes it fail, slow down or hang, by rules.

    with FaultProxy(s3.endpoint) as proxy:                            # in tests: the fixture `proxy`
        fs = pyarrow.fs.S3FileSystem(**s3.access.via(proxy.url).pyarrow())
        with proxy.fault("error", op="PutObject", nth=(1, 2)) as rule:    # 503 SlowDown, twice
            ...
        assert rule.fired == 2
        proxy.counts()["ops"]["ListObjectsV2"]          # it counts what passes, too

Requests pass unchanged, the Host header included, so their signatures stay valid. Faults:

    error     answer `status`/`code` (503 SlowDown) without asking the store
    reset     TCP reset `at` "before" the store hears of it, in mid "request" (the store sees half
              a body) or in mid "response" (the client sees half of one)
    truncated half of a response, then an orderly end of the connection
    lost      the store does it and answers, the client sees a reset
    hang      no answer, `at` "before" or in mid "response", for `seconds` (default: for ever)
    delay     wait `ms`, and `ms_per_mb` for bodies in both directions; adds to other faults
    throttle  503 SlowDown to all requests above `rate` per second (of those that match), of which
              `burst` may come at once (default: a second's)
    expired   403 ExpiredToken from then on to the key that was in use, until another key comes

A rule matches by `op` (S3's name for the operation), `method` and `path` (regular expressions;
the path includes the query), and of the matching requests it takes the `nth` (one or several,
from 1), `every` so many, or each with a `probability` (from `seed`); at most `limit` of them.
Without any of these it takes all. The first rule that fires decides; delays add up.

The control port does the same from another process, as JSON:

    python -m tests.stores.faultproxy ENDPOINT [--port N] [--control-port N] [--rules FILE]
    curl -X PUT  $CONTROL -d '[{"fault": "delay", "ms": 80}, {"fault": "lost", "nth": 3}]'
    curl -X POST $CONTROL -d '{"fault": "hang", "path": "part-0007"}'      one rule more
    curl $CONTROL                                                         rules and counts
    curl -X DELETE $CONTROL                                               no rules

Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, get_args
from urllib.parse import parse_qs, urlsplit

BLOCK = 1 << 16
BUFFER = 1 << 20
Fault = Literal["error", "reset", "truncated", "lost", "hang", "delay", "throttle", "expired"]


@dataclass
class Rule:
    """One fault and when it happens; `seen` and `fired` count matches and what came of them."""

    fault: Fault
    op: str | None = None
    method: str | None = None
    path: str | None = None
    nth: int | tuple[int, ...] | None = None
    every: int | None = None
    probability: float | None = None
    limit: int | None = None
    seed: int = 0
    at: Literal["before", "request", "response"] = "before"
    status: int = 503
    code: str = "SlowDown"
    ms: float = 0
    ms_per_mb: float = 0
    seconds: float | None = None
    rate: float = 100
    burst: float | None = None
    seen: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.fault not in get_args(Fault):
            raise ValueError(f"fault {self.fault!r}: expected one of {get_args(Fault)}")
        if isinstance(self.nth, list):
            self.nth = tuple(self.nth)
        self._random = random.Random(self.seed)
        self._burst = max(1.0, self.rate if self.burst is None else self.burst)
        self._tokens, self._filled = self._burst, time.monotonic()
        self._keys: set[str] = set()

    @classmethod
    def parse(cls, settings: dict[str, Any]) -> Rule:
        """A rule from JSON; its counts, if they are there, are left out."""
        return cls(**{k: v for k, v in settings.items() if k not in {"seen", "fired"}})

    def fires(self, request: Head) -> bool:
        """Whether this request is one of those; counts it."""
        wanted = ((self.op, request.op), (self.method, request.method), (self.path, request.target))
        if not all(want is None or re.search(want, have) for want, have in wanted):
            return False
        self.seen += 1
        fires = self._chosen() if self.fault != "expired" else self._expired(request.key)
        self.fired += fires
        return fires

    def _chosen(self) -> bool:
        if self.limit is not None and self.fired >= self.limit:
            return False
        if self.nth is not None:
            return self.seen in (self.nth if isinstance(self.nth, tuple) else (self.nth,))
        if self.every is not None:
            return self.seen % self.every == 0
        if self.probability is not None:
            return self._random.random() < self.probability
        return self.fault != "throttle" or self._over_rate()

    def _over_rate(self) -> bool:
        now = time.monotonic()
        refill = (now - self._filled) * self.rate
        self._tokens, self._filled = min(self._burst, self._tokens + refill), now
        if self._tokens < 1:
            return True
        self._tokens -= 1
        return False

    def _expired(self, key: str) -> bool:
        if not self._keys and self._chosen():
            self._keys.add(key)
        return key in self._keys


@dataclass(frozen=True)
class Head:
    """The first lines of a request or response, as they came, and what they say."""

    raw: bytes
    first: str
    headers: dict[str, str]

    @property
    def method(self) -> str:
        """GET, PUT, …"""
        return self.first.split(" ")[0]

    @property
    def target(self) -> str:
        """Path and query, as sent."""
        return self.first.split(" ")[1]

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.first.split(" ")[1])

    @property
    def key(self) -> str:
        """The access key id that signed a request."""
        signed = self.headers.get("authorization", "") + self.target
        found = re.search(r"Credential=([^/%,&]+)", signed)
        return found[1] if found else ""

    @property
    def op(self) -> str:
        """S3's name for what a request asks."""
        url = urlsplit(self.target)
        query = parse_qs(url.query, keep_blank_values=True)
        in_bucket = url.path.strip("/").count("/") == 0
        if "uploadId" in query:
            upload = {"PUT": "UploadPart", "POST": "CompleteMultipartUpload", "GET": "ListParts"}
            return upload.get(self.method, "AbortMultipartUpload")
        if "uploads" in query:
            return "CreateMultipartUpload" if self.method == "POST" else "ListMultipartUploads"
        if "delete" in query:
            return "DeleteObjects"
        if in_bucket and self.method == "GET":
            return "ListObjectsV2" if "list-type" in query else "ListObjects"
        if self.method == "PUT" and "x-amz-copy-source" in self.headers:
            return "CopyObject"
        if self.method == "PUT" and in_bucket:
            return "CreateBucket"
        return self.method.title() + ("Bucket" if in_bucket else "Object")

    @property
    def body_bytes(self) -> int | None:
        """The length of the body; None if it comes in chunks or until the connection ends."""
        if "transfer-encoding" in self.headers:
            return None
        length = self.headers.get("content-length")
        return int(length) if length else 0

    @classmethod
    async def read(cls, source: asyncio.StreamReader) -> Head | None:
        """The next head of a connection; None at its end."""
        try:
            raw = await source.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = raw.decode("latin-1").rstrip().split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        return cls(raw, first, {name.strip().lower(): value.strip() for name, value in pairs})


class Stop(Exception):
    """End this client's connection; with a reset if it says so."""

    def __init__(self, reset: bool = False) -> None:
        self.reset = reset


@dataclass
class Fate:
    """What the rules decided about one request."""

    rule: Rule | None
    delay_s: float = 0
    s_per_byte: float = 0

    def is_now(self, fault: Fault, at: str) -> bool:
        """Whether it is time for this fault."""
        return self.rule is not None and (self.rule.fault, self.rule.at) == (fault, at)

    @property
    def cuts_response(self) -> bool:
        """Whether the client sees only half of the response."""
        is_cut = self.is_now("reset", "response") or self.is_now("hang", "response")
        return is_cut or (self.rule is not None and self.rule.fault == "truncated")


class FaultProxy:
    """The proxy, in a thread of its own, until `close` or the end of the `with`.

    endpoint: the store, http or https (`ca_file` to check its certificate; else any is taken).
    `url` is what clients use instead; `control_url` speaks JSON.
    """

    def __init__(
        self,
        endpoint: str,
        rules: tuple[Rule, ...] = (),
        *,
        port: int = 0,
        control_port: int = 0,
        ca_file: str | None = None,
    ) -> None:
        self._store = urlsplit(endpoint)
        self._tls: ssl.SSLContext | None = None
        if self._store.scheme == "https":
            self._tls = ssl.create_default_context(cafile=ca_file)
            if not ca_file:
                self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self.rules = rules
        self._ops: Counter[str] = Counter()
        self._statuses: Counter[int] = Counter()
        self._faults: Counter[str] = Counter()
        self._bytes = {"up": 0, "down": 0}
        self._wanted = (port, control_port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faultproxy", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    # From the test's side

    def start(self) -> Self:
        """Listen on 127.0.0.1."""
        self._thread.start()
        ports = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.url, self.control_url = (f"http://127.0.0.1:{port}" for port in ports)
        return self

    def close(self) -> None:
        """Cut every connection and end the thread."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def add(self, rule: Rule) -> Rule:
        """One rule more, after the others."""
        self.rules = (*self.rules, rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """One rule less."""
        self.rules = tuple(r for r in self.rules if r is not rule)

    def clear(self) -> None:
        """No rules; the counts stay."""
        self.rules = ()

    @contextlib.contextmanager
    def fault(self, fault: Fault, **settings: Any) -> Iterator[Rule]:
        """A rule for the length of a `with`."""
        rule = self.add(Rule(fault, **settings))
        try:
            yield rule
        finally:
            self.remove(rule)

    def counts(self) -> dict[str, Any]:
        """Since the start: requests by operation, answers by status, faults, body bytes."""
        return {
            "ops": Counter(self._ops),
            "statuses": Counter(self._statuses),
            "faults": Counter(self._faults),
            "bytes": dict(self._bytes),
        }

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    # In the loop

    async def _listen(self) -> list[int]:
        serve, host = asyncio.start_server, "127.0.0.1"
        self._server = await serve(self._client, host, self._wanted[0], limit=BUFFER)
        self._control_server = await serve(self._control, host, self._wanted[1])
        both = (self._server, self._control_server)
        return [server.sockets[0].getsockname()[1] for server in both]

    async def _end(self) -> None:
        self._server.close()
        self._control_server.close()
        while self._tasks:  # a task may miss its cancellation: wait_for of Python 3.11 swallows some
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=0.2)

    async def _client(self, down: asyncio.StreamReader, down_w: asyncio.StreamWriter) -> None:
        """One client connection: request after request, over one connection to the store."""
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        up = Upstream(self._store.hostname or "", self._store.port or 80, self._tls)
        try:
            while (request := await Head.read(down)) is not None:
                self._ops[request.op] += 1
                await self._one(request, down, down_w, up)
        except Stop as stop:
            if stop.reset:
                reset(down_w)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # one side is gone: so is the other
        finally:
            self._tasks.discard(task)
            up.drop()
            down_w.close()

    async def _one(
        self,
        request: Head,
        down: asyncio.StreamReader,
        down_w: asyncio.StreamWriter,
        up: Upstream,
    ) -> None:
        fate = self._decide(request)
        if fate.delay_s:
            await asyncio.sleep(fate.delay_s)
        bodiless = request.body_bytes == 0 and fate.is_now("reset", "request")
        if bodiless or fate.is_now("reset", "before"):
            raise Stop(reset=True)
        if fate.is_now("hang", "before"):
            await self._hang(fate, down)
        if fate.rule and fate.rule.fault in {"error", "throttle", "expired"}:
            await self._refuse(request, fate.rule, down, down_w)
            return
        await up.begin(request.raw)
        sending = asyncio.create_task(self._send_body(request, fate, down, up))
        try:
            await self._answer(request, fate, down, down_w, up)
            # The store may answer early, as with 403; a client that goes on sending is let finish.
            await asyncio.wait_for(sending, 10)
        except BaseException:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
                await sending  # raises its Stop, if any: that is what happened first
            raise

    def _decide(self, request: Head) -> Fate:
        fate = Fate(None)
        for rule in self.rules:
            if (fate.rule and rule.fault != "delay") or not rule.fires(request):
                continue
            self._faults[rule.fault] += 1
            if rule.fault == "delay":
                fate.delay_s += rule.ms / 1e3
                fate.s_per_byte += rule.ms_per_mb / 1e9
            else:
                fate.rule = rule
        return fate

    async def _refuse(
        self, request: Head, rule: Rule, down: asyncio.StreamReader, down_w: asyncio.StreamWriter
    ) -> None:
        status, code = (403, "ExpiredToken") if rule.fault == "expired" else (rule.status, rule.code)
        waits = "expect" in request.headers  # for a 100: its body will not come
        if not waits:
            async for _ in body(down, request.body_bytes):
                pass
        text = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        shown = b"" if request.method == "HEAD" else text
        self._statuses[status] += 1
        down_w.write(
            f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(text)}\r\nx-amz-request-id: injected\r\n"
            f"{'Connection: close' + chr(13) + chr(10) if waits else ''}\r\n".encode()
            + shown
        )
        await down_w.drain()
        if waits:
            raise Stop

    async def _send_body(self, request: Head, fate: Fate, down: asyncio.StreamReader, up: Upstream) -> None:
        half = (request.body_bytes or 0) // 2
        sent, pace = 0, Pace(fate.s_per_byte)
        async for block in body(down, request.body_bytes):
            if fate.is_now("reset", "request") and sent + len(block) > half:
                await up.send(block[: max(1, half - sent)])
                await up.cut()
                raise Stop(reset=True)
            await up.send(block)
            await pace.after(len(block))
            sent += len(block)
            self._bytes["up"] += len(block)

    async def _answer(
        self,
        request: Head,
        fate: Fate,
        down: asyncio.StreamReader,
        down_w: asyncio.StreamWriter,
        up: Upstream,
    ) -> None:
        reply = await up.read_head()
        refused = "expect" in request.headers  # until the store says that the body may come
        while reply.status == 100:
            refused = False
            await flush(down_w, reply.raw)
            reply = await up.read_head()
        self._statuses[reply.status] += 1
        bodiless = request.method == "HEAD" or reply.status in {204, 304}
        length = 0 if bodiless else reply.body_bytes
        if fate.rule and fate.rule.fault == "lost":
            async for _ in body(up.reader, length):
                pass
            raise Stop(reset=True)
        if fate.cuts_response:
            await self._answer_half(reply, length, down_w, up)
            if fate.is_now("hang", "response"):
                await self._hang(fate, down)
            raise Stop(reset=not (fate.rule and fate.rule.fault == "truncated"))
        # A refused body never comes: what follows on this connection is not to be taken for it.
        end = b"Connection: close\r\n\r\n" if refused else b"\r\n"
        down_w.write(reply.raw[:-2] + end)
        pace = Pace(fate.s_per_byte)
        async for block in body(up.reader, length):
            down_w.write(block)
            await down_w.drain()
            await pace.after(len(block))
            self._bytes["down"] += len(block)
        await flush(down_w)
        if refused or "close" in (
            reply.headers.get("connection"),
            request.headers.get("connection"),
        ):
            raise Stop

    async def _answer_half(
        self, reply: Head, length: int | None, down_w: asyncio.StreamWriter, up: Upstream
    ) -> None:
        """Half of the body, of its first chunk, or of a head without a body."""
        if length == 0:
            await flush(down_w, reply.raw[: len(reply.raw) // 2])
            return
        down_w.write(reply.raw)
        passed = 0
        async for block in body(up.reader, length):
            half = length // 2 if length else len(block) // 2
            await flush(down_w, block[: half - passed])
            passed += len(block)
            if passed >= half:
                return

    async def _hang(self, fate: Fate, down: asyncio.StreamReader) -> None:
        """Say nothing until the client gives up or the time is over, then reset."""
        assert fate.rule

        async def until_gone() -> None:
            while await down.read(BLOCK):
                pass

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(until_gone(), fate.rule.seconds)
        raise Stop(reset=True)

    async def _control(self, down: asyncio.StreamReader, down_w: asyncio.StreamWriter) -> None:
        with contextlib.closing(down_w):
            request = await Head.read(down)
            if request is None:
                return
            sent = await down.readexactly(request.body_bytes or 0)
            status = "200 OK"
            try:
                if request.method == "PUT":
                    self.rules = tuple(Rule.parse(r) for r in json.loads(sent))
                elif request.method == "POST":
                    self.add(Rule.parse(json.loads(sent)))
                elif request.method == "DELETE":
                    self.clear()
                shown: dict[str, Any] = {"rules": [asdict(r) for r in self.rules], **self.counts()}
            except (TypeError, ValueError) as error:
                status, shown = "400 Bad Request", {"error": str(error)}
            text = json.dumps(shown, indent=1).encode() + b"\n"
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
            down_w.write(f"{head}Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text)
            await down_w.drain()


class Upstream:
    """A connection to the store, made when needed and kept between requests."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._where, self._tls = (host, port), tls
        self._writer: asyncio.StreamWriter | None = None
        self.reader: asyncio.StreamReader

    async def begin(self, head: bytes) -> None:
        """Send a head, connecting first if there is no connection or the store has closed it."""
        if self._writer is None or self.reader.at_eof():
            self.drop()
            self.reader, self._writer = await asyncio.open_connection(
                *self._where, ssl=self._tls, limit=BUFFER
            )
        await self.send(head)

    async def send(self, data: bytes) -> None:
        """Send a part of a body."""
        if self._writer is None:
            raise ConnectionResetError("the connection to the store is cut")
        self._writer.write(data)
        await self._writer.drain()

    async def read_head(self) -> Head:
        """The next head from the store; OSError if it hung up."""
        head = await Head.read(self.reader)
        if head is None:
            raise ConnectionResetError("the store closed the connection")
        return head

    async def cut(self) -> None:
        """Reset it, once all that was sent is out."""
        if self._writer is not None:
            await flush(self._writer)
            reset(self._writer)

    def drop(self) -> None:
        """Close it."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Pace:
    """Slows a stream down to so many seconds per byte, by sleeping off its lead."""

    def __init__(self, s_per_byte: float) -> None:
        self._s_per_byte, self._due = s_per_byte, time.monotonic()

    async def after(self, count: int) -> None:
        """Sleep until `count` bytes more may have passed."""
        self._due += count * self._s_per_byte
        lead = self._due - time.monotonic()
        if self._s_per_byte and lead > 0.001:
            await asyncio.sleep(lead)


async def body(source: asyncio.StreamReader, length: int | None) -> AsyncIterator[bytes]:
    """A body's bytes as they came, the framing of chunks included."""
    if length is not None:
        while length > 0:
            block = await source.read(min(BLOCK, length))
            if not block:
                raise ConnectionResetError("the body ended early")
            length -= len(block)
            yield block
        return
    while True:
        line = await source.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if size:
            yield line + await source.readexactly(size + 2)
            continue
        while (trailer := await source.readuntil(b"\r\n")) != b"\r\n":
            line += trailer
        yield line + trailer
        return


async def flush(writer: asyncio.StreamWriter, data: bytes = b"") -> None:
    """Write and wait until the kernel has it all."""
    writer.write(data)
    writer.transport.set_write_buffer_limits(0)
    await writer.drain()
    writer.transport.set_write_buffer_limits()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN, dropping what was not sent yet."""
    sock: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("endpoint", help="the store, as in AWS_ENDPOINT_URL")
    parser.add_argument("--port", type=int, default=0, help="where to listen (default: any free)")
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--rules", type=argparse.FileType(), help="JSON list of rules to begin with")
    parser.add_argument("--ca-file", help="CA of an https store; without it any certificate is taken")
    args = parser.parse_args()
    rules = tuple(Rule.parse(r) for r in json.load(args.rules)) if args.rules else ()
    ports = {"port": args.port, "control_port": args.control_port}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with FaultProxy(args.endpoint, rules, ca_file=args.ca_file, **ports) as proxy:
        print(f"export AWS_ENDPOINT_URL={proxy.url}\nCONTROL={proxy.control_url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    print(json.dumps(proxy.counts(), indent=1))


if __name__ == "__main__":
    main()
