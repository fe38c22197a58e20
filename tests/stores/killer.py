"""Starts a command, kills -9 it at some moment, starts it again, until it ends well.

    killer = Killer(["batchonnx", "run", "job.yaml"], after_s=(0.5, 4), kills=5, seed=7)
    report = killer.run()
    assert report.succeeded and report.kills == 5

The moment, in each try: `after_s` seconds (a number, or a range to draw from), and, where
`on_glob` is given, counted from when `on_count` more files match it than when the try began:

    Killer(cmd, on_glob=f"{folder}/.out.batchonnx/_batchonnx/commits/*", on_count=3)
    Killer(cmd, on_glob=f"{folder}/out/_SUCCESS", after_s=(0, 0.05))

`*` and `**` don't look into hidden folders; name those.

The victim: "process" (the command alone; its children live on, as after a crash), "group"
(with everything it started), or a regular expression for the command line of a descendant,
which is then killed alone: the command should survive that. Only descendants of the command
are ever killed, so other people's processes are safe. What a try leaves alive is named in the
report and killed before the next try, unless keep_survivors=True (to test for zombie writers).

    python -m tests.stores.killer [--after 0.5:4] [--on-glob PATTERN] [--on-count N]
                                  [--victim group|REGEX] [--kills N] [--tries N] [--signal KILL]
                                  [--seed N] [--log FILE] -- COMMAND...

The report is JSON on stdout, the command's own output goes to --log (default: stderr). Exit
code 0 if the command ended with 0. Standard library only, Linux.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

STEP_S = 0.002


@dataclass(frozen=True)
class Process:
    """A process, told from a later one with the same number by its start time."""

    pid: int
    started: int
    command: str

    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        stat = read_stat(self.pid)
        return stat is not None and stat[2] == self.started and stat[0] != "Z"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def read_stat(pid: int) -> tuple[str, int, int] | None:
    """State, parent and start time (clock ticks since boot) of a process; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), int(fields[19])


def descendants(pid: int) -> list[Process]:
    """All that a process started, and what that started, oldest first."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    stats = {p: stat for p in pids if (stat := read_stat(p))}
    found, family = [], {pid}
    # Parents are older than their children, but clock ticks are coarse: go over it until stable.
    while new := [p for p, stat in stats.items() if stat[1] in family and p not in family]:
        family.update(new)
        found += new
    processes = []
    for p in found:
        with suppress(OSError):
            words = Path(f"/proc/{p}/cmdline").read_bytes().replace(b"\0", b" ")
            processes.append(Process(p, stats[p][2], words.decode(errors="replace").strip()))
    return sorted(processes, key=lambda process: process.started)


@dataclass
class Try:
    """One start of the command."""

    seconds: float = 0
    exit_code: int = 0  # negative: the signal that ended it
    killed_at_s: float | None = None
    victims: list[str] = field(default_factory=list)
    survivors: list[str] = field(default_factory=list)


@dataclass
class Report:
    """All tries, in order."""

    tries: list[Try] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        """Whether the last try ended with exit code 0."""
        return bool(self.tries) and self.tries[-1].exit_code == 0

    @property
    def kills(self) -> int:
        """In how many tries something was killed."""
        return sum(t.killed_at_s is not None for t in self.tries)

    @property
    def exit_codes(self) -> list[int]:
        """Of all tries."""
        return [t.exit_code for t in self.tries]

    def as_json(self) -> str:
        """One JSON object."""
        summary = {
            "succeeded": self.succeeded,
            "kills": self.kills,
            "exit_codes": self.exit_codes,
        }
        return json.dumps(summary | {"tries": [asdict(t) for t in self.tries]}, indent=1)


@dataclass
class Killer:
    """See the top of this file. `kills` limits the kills, so that the command can end at last.

    Stops early when a try that was not killed ends with another exit code than 0, unless
    `retry_failures`; after `timeout_s` a try is killed with everything and is the last.
    """

    command: Sequence[str]
    after_s: float | tuple[float, float] = 0.0
    on_glob: str | None = None
    on_count: int = 1
    victim: str = "process"
    kills: int = 3
    tries: int = 20
    signal: signal.Signals = signal.SIGKILL
    seed: int = 0
    timeout_s: float = 600
    retry_failures: bool = False
    keep_survivors: bool = False
    cwd: str | Path | None = None
    env: Mapping[str, str] | None = None
    log: str | Path | None = None

    def run(self) -> Report:
        """Try until it ends well, or the tries are used up."""
        moments, report, survivors = random.Random(self.seed), Report(), list[Process]()
        with ExitStack() as stack:
            log = stack.enter_context(Path(self.log).open("ab")) if self.log else None
            try:
                while len(report.tries) < self.tries:
                    wait_s = self._draw(moments) if report.kills < self.kills else None
                    tried, survivors = self._one(wait_s, log)
                    report.tries.append(tried)
                    if not self.keep_survivors:
                        kill_all(survivors)
                    failed = tried.exit_code != 0 and tried.killed_at_s is None
                    if tried.exit_code == 0 or (failed and not self.retry_failures):
                        break
                    if tried.seconds >= self.timeout_s:
                        break
            finally:
                kill_all(survivors)
        return report

    def _draw(self, moments: random.Random) -> float:
        return moments.uniform(*self.after_s) if isinstance(self.after_s, tuple) else self.after_s

    def _one(self, wait_s: float | None, log: IO[bytes] | None) -> tuple[Try, list[Process]]:
        tried, began = Try(), time.monotonic()
        family: list[Process] = []
        before = self._matches()
        output: Any = log or sys.stderr
        process = subprocess.Popen(
            list(self.command),
            cwd=self.cwd,
            env=self.env,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            kill_at = None if wait_s is None or self.on_glob else began + wait_s
            seen = not self.on_glob
            looked = 0.0
            while process.poll() is None:
                now = time.monotonic()
                if now - looked > 0.1:  # to know children that outlive it
                    looked, family = now, merge(family, descendants(process.pid))
                if wait_s is not None and not seen and self._matches() - before >= self.on_count:
                    seen, kill_at = True, now + wait_s
                if kill_at is not None and now >= kill_at:
                    family = merge(family, descendants(process.pid))
                    if self._kill(process, family, tried):
                        tried.killed_at_s = round(now - began, 3)
                        kill_at = None
                if now - began > self.timeout_s:
                    kill_all([*family, *descendants(process.pid)])
                    process.kill()
                time.sleep(STEP_S)
        finally:
            if process.poll() is None:
                kill_all(descendants(process.pid))
                process.kill()
                process.wait()
        tried.seconds = round(time.monotonic() - began, 3)
        tried.exit_code = process.returncode
        survivors = [p for p in family if p.is_alive()]
        tried.survivors = [f"{p.pid} {p.command}"[:200] for p in survivors]
        return tried, survivors

    def _matches(self) -> int:
        # Path.glob refuses absolute patterns.
        return len(glob.glob(self.on_glob, recursive=True)) if self.on_glob else 0  # noqa: PTH207

    def _kill(self, process: subprocess.Popen[bytes], family: list[Process], tried: Try) -> bool:
        """Kill the victim; False if there is none yet."""
        if self.victim in {"process", "group"}:
            victims = [p for p in family if p.is_alive()] if self.victim == "group" else []
            process.send_signal(self.signal)  # the parent first, so that it can't replace a child
            if process.returncode is not None:
                return False  # it was faster
            tried.victims = [f"{process.pid} {' '.join(self.command)}"[:200]]
        else:
            victims = [p for p in family if p.is_alive() and re.search(self.victim, p.command)][:1]
        for victim in victims:
            victim.signal(self.signal)
            tried.victims.append(f"{victim.pid} {victim.command}"[:200])
        return bool(tried.victims)


def merge(known: list[Process], found: list[Process]) -> list[Process]:
    """Both, without doubles."""
    return list(dict.fromkeys([*known, *found]))


def kill_all(processes: Sequence[Process]) -> None:
    """SIGKILL each that is still alive."""
    for process in processes:
        process.signal(signal.SIGKILL)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--after", default="0", help="seconds, or a range as 0.5:4")
    parser.add_argument("--on-glob", help="wait for new files that match, then count --after")
    parser.add_argument("--on-count", type=int, default=1, help="how many new ones")
    parser.add_argument("--victim", default="process", help="process, group, or a regex")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--signal", default="KILL", help="KILL, TERM, INT, STOP, ...")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one try")
    parser.add_argument("--retry-failures", action="store_true")
    parser.add_argument("--keep-survivors", action="store_true")
    parser.add_argument("--log", help="file for the command's output (default: stderr)")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        parser.error("no command")
    ends = [float(part) for part in args.after.split(":")]
    report = Killer(
        words,
        after_s=(ends[0], ends[1]) if len(ends) == 2 else ends[0],
        on_glob=args.on_glob,
        on_count=args.on_count,
        victim=args.victim,
        kills=args.kills,
        tries=args.tries,
        signal=signal.Signals[f"SIG{args.signal}"],
        seed=args.seed,
        timeout_s=args.timeout,
        retry_failures=args.retry_failures,
        keep_survivors=args.keep_survivors,
        log=args.log,
    ).run()
    print(report.as_json())
    return not report.succeeded


if __name__ == "__main__":
    sys.exit(main())
