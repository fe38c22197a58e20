"""The plan: everything that a run will do, decided before the first row is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod
from pathlib import Path

import pyarrow as pa

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.parts.layout import default_compression, part_name, suffix_of
from batchonnx.planning.bindings import AudioColumn, FeatureBinding, ImageColumn, OutputBinding, StateBinding
from batchonnx.planning.contract import make_contract
from batchonnx.planning.features import feature_columns
from batchonnx.planning.filter import Filter, parse_filter
from batchonnx.planning.gate import check_gate
from batchonnx.planning.hooks import forget_hooks
from batchonnx.planning.identity import Identity, fingerprint, make_identity
from batchonnx.planning.inputs import list_job
from batchonnx.planning.lines import check_lines, written_columns
from batchonnx.planning.listing import Listing, check_columns
from batchonnx.planning.parts import check_parts
from batchonnx.planning.shards import Shard, make_shards
from batchonnx.planning.texts import text_of
from batchonnx.planning.types import row_bytes
from batchonnx.runtime.device import CPU, Device
from batchonnx.runtime.signature import ModelSignature
from batchonnx.storage.paths import HIDDEN_FROM_TABLES
from batchonnx.storage.plain import is_plain

CHUNK_BYTES = 12 << 20
"""Rows are read, encoded and written in chunks of about this size: large enough that handing a
chunk from one thread to the next costs nothing, small enough to stay in the last cache."""

CHUNK_ROWS = 1 << 17
MEASURED_SIZES_DIVIDE = 4096

DECODED_CHUNK_BYTES = 1 << 20
"""Of images: they grow when they are decoded, and a model takes its time for each. Workers share chunks."""

DECODED_SIZES_DIVIDE = (64, 8, 1)
DECODED_BATCH_BYTES = 64 << 20
"""Rows of a batch of images are bound by the memory of their encoded bytes: the largest of the sizes that
stays below this."""

DEVICE_ROWS, DEVICE_BATCH_BYTES = 16384, 256 << 20
"""The same for a device, of what the model is fed: it is copied to page-locked memory."""

WINDOW_ROWS, WINDOW_BYTES = 4096, 8 << 20
"""Texts are arranged by length among so many at most, and fewer where they are long: all of them, and what
becomes of them, are in memory at once."""


@dataclass(frozen=True)
class Plan:
    """A pure function of job, model and input listing.

    columns: input columns to read for features and keep, in the schema's order.
    keep: fields carried along into the parts, before the predictions.
    pruned_rows: rows of files and row groups that the filter leaves out without reading them.
    states: what the model carries from window to window of a row.
    fixed_batch: rows that the model takes in each call; None: any number.
    row_bytes: estimated bytes of one row of `columns`, in memory.
    output: absolute path of the output folder; of a table, of the run's own folder in it.
    notes: what a user should know and need not mend (a narrowing cast, a guessed match).
    identity: all that decides the result's bytes, by name. device: what sessions are opened on.
    """

    job: JobFile
    model: ModelSignature
    listing: Listing
    columns: tuple[str, ...]
    filter: Filter | None
    features: tuple[FeatureBinding, ...]
    states: tuple[StateBinding, ...]
    outputs: tuple[OutputBinding, ...]
    keep: tuple[pa.Field, ...]
    shards: tuple[Shard, ...]
    pruned_rows: int
    fixed_batch: int | None
    row_bytes: float
    output: str
    notes: tuple[str, ...]
    identity: Identity
    device: Device = CPU

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the identity."""
        return fingerprint(self.identity)

    def part(self, shard: Shard) -> str:
        """The name of a shard's part."""
        return part_name(shard.number, self.fingerprint, suffix_of(self.part_format, self.compression))

    @property
    def part_format(self) -> str:
        """Of the parts: a table's are Parquet."""
        asked = self.job.job.output.format
        return "parquet" if asked in ("delta", "iceberg") else asked

    @property
    def compression(self) -> str:
        """Of the parts."""
        return self.job.job.output.compression or default_compression(self.part_format)

    @property
    def rows(self) -> int | None:
        """Rows in all shards, before the filter; None where only reading tells."""
        known = [shard.rows for shard in self.shards if shard.rows is not None]
        return sum(known) if len(known) == len(self.shards) else None

    @property
    def whole_rows(self) -> int:
        """What a chunk's rows are a multiple of, and small row groups are joined to.

        The batch size where it is given; else a number that every measured size divides, so that
        reading needn't wait for the measurement, and doesn't depend on it. A window, of texts.
        """
        if text_of(self.features) is not None:
            return self.window_rows
        asked = self.job.job.engine.batch_rows
        return self.fixed_batch or (asked if asked != "auto" else self.largest_measured)

    @property
    def window_rows(self) -> int:
        """At most so many rows are arranged together, where they are arranged."""
        text = text_of(self.features)
        made = (
            sum(_listed_bytes(output, text.max_length) for output in self.outputs) if text is not None else 0
        )
        return max(1, min(WINDOW_ROWS, int(WINDOW_BYTES / (self.row_bytes + made))))

    @property
    def is_decoded(self) -> bool:
        """Whether rows hold encoded files, whose tensors are many times larger."""
        return any(isinstance(binding, ImageColumn | AudioColumn) for binding in self.features)

    @property
    def _fed_bytes(self) -> float:
        """About what the model is fed for one row."""
        return max(self.row_bytes, sum(map(_tensor_bytes, self.features)))

    @property
    def largest_measured(self) -> int:
        """The largest batch size that is tried where none is given; each smaller one divides it."""
        if not self.device.is_cpu and not any(map(_is_open, self.features)):
            return 1 << max(0, int(min(DEVICE_ROWS, DEVICE_BATCH_BYTES / self._fed_bytes)).bit_length() - 1)
        if not self.is_decoded:
            return MEASURED_SIZES_DIVIDE
        if any(map(_is_open, self.features)):
            return 1
        sizes = (size for size in DECODED_SIZES_DIVIDE if size * self.row_bytes <= DECODED_BATCH_BYTES)
        return next(sizes, 1)

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk: a multiple of `whole_rows`, of about CHUNK_BYTES."""
        size = DECODED_CHUNK_BYTES if self.is_decoded else CHUNK_BYTES
        rows = int(min(size / self.row_bytes, CHUNK_ROWS))
        return self.whole_rows * max(1, rows // self.whole_rows)

    @property
    def chunks(self) -> int:
        """About how many chunks there are: what workers can share, however few the shards."""
        return sum(max(1, ceil((shard.rows or 1) / self.chunk_rows)) for shard in self.shards)


def _is_open(binding: FeatureBinding) -> bool:
    """Whether each row's tensor has a size of its own, so that only a batch of one takes any row."""
    if isinstance(binding, ImageColumn):
        return binding.pixels.size is None
    return isinstance(binding, AudioColumn) and binding.sound.window is None and binding.row_shape[-1] is None


def _tensor_bytes(binding: FeatureBinding) -> int:
    """Of one row's image, as the model takes it; 0 of all that is as large in the file."""
    if not isinstance(binding, ImageColumn) or binding.pixels.size is None:
        return 0
    return 4 * 3 * prod(binding.pixels.size)


def _listed_bytes(output: OutputBinding, most: int) -> int:
    """About what a row's values of an output take that has as many as there are tokens."""
    if output.row_shape is None or None not in output.row_shape:
        return 0
    return 8 * prod(most if dim is None else dim for dim in output.row_shape)


def run_name(fingerprint: str) -> str:
    """The folder of a run's files among those of a table. No run's files are ever another's."""
    return f"run-{fingerprint[:16]}"


def make_plan(job: JobFile, model: ModelSignature, device: Device = CPU) -> Plan:
    """Decide what a run will do.

    Reads the input's listing and footers, no rows; never runs the model. Raises InputError,
    ContractError or HookError.
    """
    forget_hooks()
    job, listing = list_job(job)
    spec = job.job
    output = job.resolve(spec.output.path).rstrip("/")
    _check_apart(job, listing, output)
    contract = make_contract(job, model, listing)
    row_filter = None
    if spec.input.filter is not None:
        row_filter = parse_filter(spec.input.filter, listing.schema, job.where("input.filter"))
    used = {c for binding in contract.features for c in feature_columns(binding)} | set(spec.keep)
    columns = tuple(name for name in listing.schema.names if name in used)
    filtered_by = row_filter.columns if row_filter else frozenset()
    check_lines(job, contract.keep, contract.outputs)
    types = dict(written_columns(contract.keep, contract.outputs))
    check_gate(job, types)
    check_parts(job, types)
    check_columns(listing, [name for name in listing.schema.names if name in used or name in filtered_by])
    shards = make_shards(listing, row_filter)
    identity = make_identity(job, model, listing, contract.features, contract.outputs, device)
    if spec.output.format in ("delta", "iceberg"):
        output = f"{output}/{run_name(fingerprint(identity))}"
    return Plan(
        job=job,
        model=model,
        listing=listing,
        columns=columns,
        filter=row_filter,
        features=contract.features,
        states=contract.states,
        outputs=contract.outputs,
        keep=contract.keep,
        shards=shards.shards,
        pruned_rows=shards.pruned_rows,
        fixed_batch=contract.fixed_batch,
        row_bytes=row_bytes(listing.schema, columns, _table_row_bytes(shards.shards)),
        output=output,
        notes=(*contract.notes, *_store_notes(job, output)),
        identity=identity,
        device=device,
    )


def _store_notes(job: JobFile, output: str) -> tuple[str, ...]:
    """How results get into a store that has neither uploads nor conditions. Raises ContractError."""
    if not is_plain(output):
        return ()
    if job.job.output.single_writer != "trusted":
        facts = {"job": job.where("output.path"), "output": output, "expected": "a local folder, or s3://"}
        fix = "where you know that no second run writes there, set output.single_writer: trusted"
        title = "nothing keeps two runs apart in such a store: it has no conditional writes"
        raise ContractError(Problem(title, facts, fix))
    told = "parts are staged in _batchonnx/uploads and copied within the store when the run is published"
    return (told,)


def _check_apart(job: JobFile, listing: Listing, output: str) -> None:
    """A result among the input's files would be scored by the next run. Links are followed."""
    if "://" in output:
        folders = {file.path.rpartition("/")[0]: file.path for file in listing.files}
        inside = next((f for folder, f in folders.items() if f"{folder}/".startswith(f"{output}/")), None)
    else:
        output = os.path.realpath(output)
        folders = {
            file.path.rpartition("/")[0]: file.path for file in listing.files if "://" not in file.path
        }
        inside = next((f for folder, f in folders.items() if _is_in(os.path.realpath(folder), output)), None)
    facts = {"job": job.where("output.path"), "output": output}
    fix = "name an output folder outside of input.path"
    if inside is not None:
        facts["file"] = inside
        raise ContractError(Problem("the output holds a file of the input", facts, fix))
    asked = job.job.input
    if asked.path is None or asked.format in ("delta", "iceberg"):
        return  # a table's own log says what it is made of, whatever lies beside that
    for folder in map(job.resolve, [asked.path] if isinstance(asked.path, str) else asked.path):
        if "://" in folder or "://" in output or not Path(folder).is_dir():
            continue
        real = os.path.realpath(folder)
        hidden = (".",) if listing.format == "files" else HIDDEN_FROM_TABLES
        below = Path(output).relative_to(real).parts if _is_in(output, real) else (".",)
        if not any(part.startswith(hidden) for part in below):
            facts["input"] = folder
            raise ContractError(Problem("the output would be a part of the input", facts, fix))


def _is_in(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _table_row_bytes(shards: Iterable[Shard]) -> float:
    known = [(shard.bytes, shard.rows) for shard in shards if shard.rows]
    return sum(b for b, _ in known) / max(1, sum(r for _, r in known)) if known else 256.0
