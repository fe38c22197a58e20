"""Ray Data over the same rows, with the same sessions: read_parquet, map_batches by actors, write_parquet.

python -m tests.benchmarks.ray_data FOLDER NAME   one run of a setting, on the cluster of RAY_ADDRESS

Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchonnx.runtime.cores import usable_cores
from batchonnx.runtime.session import open_model
from tests.benchmarks.contenders import Task
from tests.benchmarks.data import make_case
from tests.benchmarks.on_ray import medians, run_apart
from tests.integration.ray_cluster import ray_cluster

GOALS = {"tiny": 4.0, "middle": 1.5}
"""Case -> at least so many times Ray Data's rows/s."""

STORE_BYTES = 4 << 30
"""Of shared memory for the rows that Ray Data moves: the table eight times."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """How Ray Data is asked. None: as it does by itself.

    actors: of the pool; cpus: of one of them. batch_rows: handed to an actor; call_rows: of those, to the
    model at once. blocks: that the input is read in. files: that the table is divided into beforehand.
    """

    actors: int | None = None
    cpus: float = 1
    batch_rows: int | None = None
    call_rows: int | None = None
    batch_format: str = "numpy"
    blocks: int | None = None
    files: int | None = None


HALVES = Setting(actors=2, cpus=0.5)
"""Two actors of a whole core each would leave none for the tasks that read and write."""

SETTINGS = {
    "default": Setting(),
    "batches": dataclasses.replace(HALVES, batch_rows=4096, batch_format="pyarrow", blocks=16),
    "blocks": dataclasses.replace(HALVES, call_rows=4096, blocks=16),
    "files": dataclasses.replace(HALVES, call_rows=4096, batch_format="pyarrow", files=16),
}
"""Name -> a setting: what Ray Data does by itself, and what was found to be fast on two cores."""


class Predict:
    """An actor's: one session for all of its batches."""

    def __init__(self, task: Task, setting: Setting, ready: Path) -> None:
        self._task, self._setting = task, setting
        self._model = open_model(task.model, threads=1)
        (ready / str(time.time_ns())).touch()

    def __call__(self, batch: Any) -> dict[str, np.ndarray]:
        columns = [batch[name] for name in self._task.columns]
        rows = len(columns[0])
        step = self._setting.call_rows or rows
        scores = [self._predict(columns, first, min(step, rows - first)) for first in range(0, rows, step)]
        return {self._task.column: np.concatenate(scores) if scores else np.empty(0, np.float32)}

    def _predict(self, columns: list[Any], first: int, rows: int) -> np.ndarray:
        if self._setting.batch_format == "numpy":
            x = np.column_stack([column[first : first + rows] for column in columns])
        else:
            x = np.column_stack([column.slice(first, rows).to_numpy() for column in columns])
        (y,) = self._model.run([self._task.output], {self._task.input: x.astype(np.float32, copy=False)})
        return np.asarray(y).reshape(rows)


def score(folder: Path, setting: Setting) -> dict[str, float]:
    """One run. work_s: from the moment when the first actor had its session; reading has begun before.

    The processes of tasks are there, and have imported what they need, before it begins.
    """
    import ray
    import ray.data

    task, out, ready = Task(folder), folder / "ray-data", folder / "ready"
    data = _divided(task.data, setting.files) if setting.files else task.data
    for place in (out, ready):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    ray.init(log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    few = [pa.table({"n": [number]}) for number in range(4)]
    ray.data.from_arrow(few).map_batches(_late).write_parquet(str(out / "few"))
    shutil.rmtree(out / "few")
    begin = time.time()
    blocks = {} if setting.blocks is None else {"override_num_blocks": setting.blocks}
    dataset = ray.data.read_parquet(str(data), columns=task.columns, **blocks)
    dataset = dataset.map_batches(
        Predict,
        fn_constructor_args=(task, setting, ready),
        batch_size=setting.batch_rows,
        batch_format=setting.batch_format,
        compute=ray.data.ActorPoolStrategy(size=setting.actors),
        num_cpus=setting.cpus,
    )
    dataset.write_parquet(str(out))
    end = time.time()
    first = min(int(file.name) for file in ready.iterdir()) / 1e9
    rows = sum(pq.read_metadata(file).num_rows for file in out.glob("*.parquet"))
    assert rows == pq.read_metadata(task.data).num_rows
    return {"rows_s": rows / (end - first), "work_s": end - first, "seconds": end - begin}


def _late(batch: Any) -> Any:
    """Long enough for all cores to be asked."""
    time.sleep(0.5)
    return batch


def beside_ray_data(folder: Path, rounds: int) -> Iterator[str]:
    """The MLPs, our engine and Ray Data's settings in turn."""
    yield f"raydata: {usable_cores()} cores; rows/s from the first session on, actors' start left out"
    with ray_cluster(1, usable_cores(), object_store_memory=STORE_BYTES):
        for name, goal in GOALS.items():
            case = make_case(name, folder)
            seen: dict[str, list[dict[str, float]]] = {"ours": [], **{setting: [] for setting in SETTINGS}}
            for _ in range(rounds):
                for contender, figures in seen.items():
                    if contender == "ours":
                        figures.append(run_apart(case.folder, "ray"))
                    else:
                        figures.append(run_apart(case.folder, contender, module="tests.benchmarks.ray_data"))
            ours, *others = (medians(figures) for figures in seen.values())
            yield f"  {name}: ours {ours['rows_s']:,.0f} rows/s, {ours['seconds']:.1f} s with its start"
            for setting, theirs in zip(SETTINGS, others, strict=True):
                yield (
                    f"    Ray Data, {setting:<8} {theirs['rows_s']:12,.0f} rows/s, {theirs['seconds']:.1f} s "
                    f"with its start: {ours['rows_s'] / theirs['rows_s']:.1f}x   (goal: {goal})"
                )


def _divided(data: str, files: int) -> Path:
    """The table as so many files of one row group, beside it; made if they aren't there."""
    folder = Path(data).with_suffix(f".{files}")
    if not folder.exists():
        table = pq.read_table(data)
        rows = -(-table.num_rows // files)
        folder.mkdir()
        for number in range(files):
            part = table.slice(number * rows, rows)
            pq.write_table(part, folder / f"{number:03}.parquet", row_group_size=rows)
    return folder


if __name__ == "__main__":
    pa.set_cpu_count(1)
    print(json.dumps(score(Path(sys.argv[1]), SETTINGS[sys.argv[2]])))
