"""A store that ignores preconditions, to prove that a preflight notices.

    with BadStore(tmp_path) as store:                                       # in tests: `bad_store`
        store.request("PUT", "/test/k", b"1").status                            # 200
        store.request("PUT", "/test/k", b"2", {"If-None-Match": "*"}).status    # 200; AWS: 412

The surface is that of S3Server. What is wrong with it, seen with nanio 0.1.7: If-None-Match and
If-Match are ignored on PUT and DELETE, so everyone who races for a key wins, and counters lose
updates; objects written through pyarrow's S3FileSystem come back longer than they were (the chunk
framing is stored); suffix ranges are refused; a kill -9 may leave an object of the wrong size that
nobody acknowledged.

On the command line: python -m tests.stores.badstore DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.stores.s3server import REGION, Store, serve


class BadStore(Store):
    """nanio: an S3 server in pure Python that answers 200 to every conditional write."""

    def command(self) -> list[str]:
        """One process on one port, data as plain files."""
        port = self.ports[0]
        self.access = self.access.via(f"http://127.0.0.1:{port}")
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        where = ["--data-dir", str(data), "--host", "127.0.0.1", "--port", str(port)]
        quiet = ["--region", REGION, "--no-access-log"]
        return [sys.executable, "-m", "nanio", "serve", *where, *quiet]

    def environment(self) -> dict[str, str]:
        """It takes its only identity from the environment."""
        return {"NANIO_ACCESS_KEY": self.key, "NANIO_SECRET_KEY": self.secret}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="for data and logs; kept at the end")
    serve(BadStore(parser.parse_args().folder))


if __name__ == "__main__":
    main()
