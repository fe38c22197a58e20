"""Drains this node of a Ray cluster when its cloud says that it will be taken away.

    python3 drain_on_notice.py aws|gcp

Runs beside `ray start` on a spot machine and asks the machine's metadata service every few seconds. Ray then
places nothing new here, and batchonnx's driver gives the node's shards to others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

EVERY_S = float(os.environ.get("EVERY_S", "5"))
SERVICE = os.environ.get("METADATA_URL", "http://169.254.169.254")
SECONDS_LEFT = {"aws": 110, "gcp": 25}


def ask(path: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """The service's answer; None where it has none, or can't be reached."""
    request = urllib.request.Request(f"{SERVICE}{path}", headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            text: str = answer.read().decode()
            return text
    except (urllib.error.URLError, OSError):
        return None


def is_noticed(cloud: str) -> bool:
    """Whether the machine will be taken away."""
    if cloud == "gcp":
        told = ask("/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
        return told is not None and told.strip() == "TRUE"
    token = ask("/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")
    if token is None:
        return False
    return ask("/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token}) is not None


def main() -> int:
    """Wait for the notice, then drain."""
    if len(sys.argv) != 2 or sys.argv[1] not in SECONDS_LEFT:
        print("usage: drain_on_notice.py aws|gcp", file=sys.stderr)
        return 2
    cloud = sys.argv[1]
    while not is_noticed(cloud):
        time.sleep(EVERY_S)
    command = ["ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", "the cloud takes this spot machine away"]
    command += ["--deadline-remaining-seconds", str(SECONDS_LEFT[cloud])]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
