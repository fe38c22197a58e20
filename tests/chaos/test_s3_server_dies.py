"""The store is killed at random moments of a run, and comes back: the run ends well, told twice at most."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

import batchonnx
from batchonnx.errors import StorageError
from tests.chaos.bucket import contents, make_input, make_job, require_result
from tests.chaos.dying_s3 import Life
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

DEATHS = 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_store_that_is_killed_costs_no_row(
    s3: S3Server, s3_folder: str, use_store: UseStore, tmp_path: Path
) -> None:
    use_store(s3)
    make_input(tmp_path)
    batchonnx.run(make_job(tmp_path, str(tmp_path / "out")))
    wanted = contents(str(tmp_path / "out"))
    with Life().lived() as whole:
        batchonnx.run(make_job(tmp_path, f"{s3_folder}/whole"))
    draw = random.Random(11)
    errors = 0
    for death in range(DEATHS):
        output = f"{s3_folder}/{death}"
        while True:
            moment, again = draw.randint(1, len(whole.asked)), threading.Event()
            run = threading.Thread(target=run_until_done, args=(tmp_path, output, again))
            with Life().lived() as life:
                run.start()
                while len(life.asked) < moment and run.is_alive():
                    pass
                is_alive = run.is_alive()
                s3.kill9()
                s3.restart()
                run.join()
            errors += again.is_set()
            if is_alive:
                break
            output += "-again"
        batchonnx.run(make_job(tmp_path, output))
        require_result(output, wanted)
    print(f"{errors} of {DEATHS} runs had to be started again")


def run_until_done(folder: Path, output: str, again: threading.Event) -> None:
    try:
        batchonnx.run(make_job(folder, output))
    except StorageError:
        again.set()
