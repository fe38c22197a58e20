"""Nothing that is written or told holds a secret: not when a run succeeds, nor when it fails in any way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from batchonnx.ledger.object_folder import ObjectFolder
from tests.chaos.bucket import job_spec, make_input
from tests.stores.faultproxy import FaultProxy
from tests.stores.fixtures import UseStore
from tests.stores.s3server import Access, S3Server

ROOT = Path(__file__).parents[2]
TOKEN = "FwoGZXIvYXdzEDISTINCTIVETOKENc2VjcmV0"
WRONG_SECRET = "wJalrDISTINCTIVESECRETbPxRfiCYEXAMPLEKEY"


class Told:
    """Runs commands, and keeps all they say."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.text = folder, ""

    def run(self, access: Access, *arguments: str, code: int, token: str = "") -> str:
        env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        env |= access.env() | {"XDG_CACHE_HOME": str(self.folder / "cache"), "AWS_MAX_ATTEMPTS": "2"}
        if token:
            env["AWS_SESSION_TOKEN"] = token
        command = [sys.executable, "-m", "batchonnx", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        self.text += done.stdout + done.stderr
        return done.stdout


def everything_written(folder: Path, output: str) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()
    there = ObjectFolder(output)
    for entry in there.list():
        found = there.get(entry.key)
        assert found is not None
        yield entry.key, found[0]


def test_neither_secret_nor_token_is_written_or_told(
    s3: S3Server, proxy: FaultProxy, s3_folder: str, use_store: UseStore, tmp_path: Path
) -> None:
    output = f"{s3_folder}/out"
    make_input(tmp_path)
    spec = job_spec(output)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec))
    job = str(tmp_path / "job.yaml")
    told = Told(tmp_path)
    told.run(s3.access, "plan", job, "--json", code=0)
    told.run(s3.access, "run", job, "--json", code=0)
    told.run(s3.access, "verify", output, "--json", code=0)
    told.run(s3.access, "clean", output, code=0)
    wrong = Access(s3.endpoint, s3.key, WRONG_SECRET)
    through = s3.access.via(proxy.url)
    with proxy.fault("expired"):
        for way in ((), ("--json",)):
            told.run(wrong, "run", job, "--fresh", *way, code=3)
            told.run(s3.reader, "run", job, "--fresh", *way, code=3)
            told.run(through, "run", job, "--fresh", *way, code=3, token=TOKEN)
            told.run(through, "verify", output, *way, code=3, token=TOKEN)
    assert "wrong" in told.text
    assert "expired" in told.text
    assert "denies access" in told.text
    use_store(s3)
    secrets = (s3.secret, s3.reader.secret, WRONG_SECRET, TOKEN)
    for secret in secrets:
        assert secret not in told.text
    written = list(everything_written(tmp_path, output))
    assert len(written) > 10
    for name, data in written:
        for secret in secrets:
            assert secret.encode() not in data, name
