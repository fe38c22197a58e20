"""What can be set, and so be tried: a grid of settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batchonnx.planning.bindings import HookFeature
from batchonnx.planning.plan import Plan
from batchonnx.planning.texts import text_of
from batchonnx.runtime.cores import divide_cores

ROWS = (1, 8, 64, 256, 1024, 4096)
TEXT_ROWS = (4, 16, 64, 256)


@dataclass(frozen=True)
class Setting:
    """workers, batch_rows, hook_processes: as `engine` has them. threads: of each worker's session, what the
    workers leave of the cores."""

    workers: int
    threads: int
    batch_rows: int
    hook_processes: int = 0


def grid(plan: Plan, cores: int) -> list[Setting]:
    """All settings that are worth a try with so many cores.

    Workers are powers of two up to the cores, and the cores themselves; with Ray a worker is what the job
    says that it is. Batches are those that `auto` chooses from.
    """
    asked = plan.job.job.engine
    if asked.name == "ray":
        threads = min(asked.resources.num_cpus, cores)
        crews = [(max(1, cores // threads), threads)]
    else:
        counts = sorted({*(2**power for power in range(cores.bit_length()) if 2**power <= cores), cores})
        crews = [
            (budget.workers, budget.threads_per_worker if plan.device.is_cpu else 1)
            for budget in (divide_cores(cores, workers, plan.chunks) for workers in counts)
        ]
    processes = [0, *sorted({1, cores})] if _has_hooks(plan) else [asked.hook_processes]
    return [
        Setting(workers, threads, rows, beside)
        for workers, threads in dict.fromkeys(crews)
        for rows in _batches(plan)
        for beside in processes
    ]


def _batches(plan: Plan) -> Iterator[int]:
    if plan.fixed_batch is not None:
        yield plan.fixed_batch
        return
    is_text = text_of(plan.features) is not None
    largest = plan.rows or ROWS[-1]
    if not is_text and plan.job.job.engine.batch_rows == "auto":
        largest = min(largest, plan.largest_measured)
    sizes = TEXT_ROWS if is_text else ROWS
    yield from [size for size in sizes if size <= largest] or [1]


def _has_hooks(plan: Plan) -> bool:
    is_fed = any(isinstance(binding, HookFeature) for binding in plan.features)
    return is_fed or any(binding.function is not None for binding in plan.outputs)
