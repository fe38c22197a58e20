"""A plan in words, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from batchonnx.lifecycle.provenance import steps_of
from batchonnx.planning.bindings import (
    AudioColumn,
    BytesColumn,
    Constant,
    FeatureBinding,
    HookFeature,
    ImageColumn,
    OutputBinding,
    Pixels,
    Sound,
    StackedScalars,
    TensorColumn,
    TextColumn,
)
from batchonnx.planning.lines import written_columns
from batchonnx.planning.plan import Plan
from batchonnx.report.model_view import format_step
from batchonnx.report.text import count, of_bytes, plural, printable
from batchonnx.runtime.providers import words_for
from batchonnx.runtime.signature import ModelSignature


def format_plan(plan: Plan) -> str:
    """What a run will do, in a screenful."""
    return "\n".join(printable(line) for line in _lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    job, listing = plan.job.job, plan.listing
    size = sum(file.size for file in listing.files)
    yield f"{job.name}"
    yield from _models(plan.model)
    rows = "unknown number of rows" if plan.rows is None else plural(plan.rows + plan.pruned_rows, "row")
    yield f"  input    {plural(len(listing.files), 'file')}, {listing.format}, {of_bytes(size)}, {rows}"
    if listing.version is not None:
        yield f"           of version {listing.version} of the {str(job.input.format).capitalize()} table"
    if listing.partition_columns:
        yield f"           partitioned by {', '.join(listing.partition_columns)}"
    if plan.filter is not None:
        pruned = f"  ({count(plan.pruned_rows)} rows are left out unread)" if plan.pruned_rows else ""
        yield f"  filter   {plan.filter.text}{pruned}"
    for number, binding in enumerate(plan.features):
        yield f"  {'feed' if not number else '':<8} {_feature(binding)}"
    for state in plan.states:
        yield f"           {state.input} <- {state.output.name} of the window before"
    for number, output in enumerate(plan.outputs):
        yield f"  {'predict' if not number else '':<8} {_output(output)}"
    if plan.keep:
        yield f"  keep     {', '.join(f'{field.name} {field.type}' for field in plan.keep)}"
    batch = plan.fixed_batch or job.engine.batch_rows
    rows_of = "measured on the first rows" if batch == "auto" else f"{batch:,} rows"
    yield f"  work     {plural(len(plan.shards), 'shard')}, batches: {rows_of}"
    if not plan.device.is_cpu:
        options = ", ".join(f"{name}: {value}" for name, value in plan.device.options.items())
        yield f"  device   {words_for(plan.device)}{f', with {options}' if options else ''}"
    yield f"  output   {plan.output}"
    keys = job.output.partition_by
    if keys or plan.part_format != "parquet":
        told = f", in folders by {', '.join(keys)}" if keys else ""
        packed = f", {plan.compression}" if plan.compression != "none" else ""
        yield f"           {plan.part_format}{packed}{told}"
    if job.output.format in ("delta", "iceberg"):
        table = plan.job.resolve(job.output.path) if job.output.table is None else job.output.table.name
        how = "in place of all that it holds" if job.output.overwrite else "in one commit"
        yield f"  table    {job.output.format} {table}: the parts are added {how}"
    for note in plan.notes:
        yield f"  note     {note}"


def _models(model: ModelSignature) -> Iterator[str]:
    """Where each model is and how it was made; of a chain, what each takes of those before."""
    outputs = {spec.name for spec in model.outputs}
    names = [f"{member.name}: " for member in model.members] or [""]
    for number, (name, single) in enumerate(zip(names, model.files, strict=True)):
        told = f"{of_bytes(single.bytes)}, sha256 {single.digest[:12]}…"
        yield f"  {'model' if not number else 'then':<8} {name}{single.path}  ({told})"
        if model.members:
            sources = model.members[number].sources
            for spec in single.inputs:
                if sources[spec.name] in outputs:
                    yield f"           {spec} <- {sources[spec.name]}"
        for step_number, step in enumerate(steps_of(single)):
            yield f"  {'made' if not step_number else '':<8} {format_step(step)}"


def _feature(binding: FeatureBinding) -> str:
    if isinstance(binding, HookFeature):
        names = ", ".join(map(str, binding.inputs))
        return f"{names} <- {binding.function}({_names(binding.columns)})"
    if isinstance(binding, TextColumn):
        return f"{', '.join(map(str, binding.inputs))} <- {_names(binding.columns)}, {_tokens(binding)}"
    return f"{binding.input} <- {_source(binding)}"


def _source(
    binding: StackedScalars | TensorColumn | BytesColumn | ImageColumn | AudioColumn | Constant,
) -> str:
    if isinstance(binding, StackedScalars):
        return _names(binding.columns)
    if isinstance(binding, Constant):
        return f"the constant {binding.value.tolist()!r}"[:80]
    if isinstance(binding, ImageColumn):
        return f"{binding.column}, {_pixels(binding.pixels)}"
    if isinstance(binding, AudioColumn):
        return f"{binding.column}, {_sound(binding.sound)}"
    return binding.column


def _names(columns: tuple[str, ...]) -> str:
    if len(columns) <= 6:
        return ", ".join(columns)
    return f"{columns[0]}, {columns[1]} … {columns[-1]} ({len(columns)} columns)"


def _tokens(text: TextColumn) -> str:
    """How texts become tokens, with what the model or the tokenizer's files have settled."""
    prefix = f"{text.prefix!r} in front, " if text.prefix else ""
    side = "left" if text.from_left else "right"
    padded = f"padded with {text.pad_id}" if text.lengths else "not padded"
    return f"tokens, {prefix}at most {text.max_length}, cut on the {side}, {padded}"


def _sound(sound: Sound) -> str:
    """How sounds become numbers."""
    if sound.window is not None:
        hop = f" every {sound.hop}" if sound.hop != sound.window else ""
        return f"sounds at {sound.rate} Hz, windows of {sound.window} samples{hop}"
    return f"sounds at {sound.rate} Hz, {sound.samples or 'all'} samples"


def _pixels(pixels: Pixels) -> str:
    """How images become numbers, with what the model or a preset has settled."""
    size = f" {pixels.size[1]} x {pixels.size[0]}" if pixels.size is not None else ""
    edge = f" side {pixels.edge}" if pixels.edge is not None else ""
    how = f"resize {pixels.resize}{edge}{size}" if pixels.resize != "none" else f"not resized{size}"
    layout = "channels first" if pixels.channels_first else "channels last"
    filtered = f", {pixels.resample}" if pixels.resize != "none" else ""
    return f"images in {pixels.channels}, {how}{filtered}, {layout}"


def _output(binding: OutputBinding) -> str:
    steps = [f"{name} {getattr(binding, name)}" for name in ("pool", "precision") if getattr(binding, name)]
    steps += [name for name in ("normalize", "softmax", "sigmoid", "argmax") if getattr(binding, name)]
    steps += [
        f"{name} {getattr(binding, name)}"
        for name in ("index", "top_k", "threshold")
        if getattr(binding, name) is not None
    ]
    if binding.function:
        steps.append(binding.function)
    elif binding.others:
        steps.append("mean")
    if binding.counted is not None:
        steps.append(f"as many as {binding.counted.by.name} tells")
    if binding.detection is not None:
        asked = binding.detection
        steps.append(f"objects of at least {asked.min_score:g}, overlap up to {asked.max_overlap:g}")
        steps.append("boxes in pixels of the image" if asked.in_image else "boxes as the model gives them")
    if binding.explode:
        steps.append("a line for each")
    how = f" ({', '.join(steps)})" if steps else ""
    arrow = "as the first batch shows" if binding.type is None else str(binding.type)
    return f"{binding.name}: {arrow} <- {', '.join(map(str, binding.sources))}{how}"


def plan_as_dict(plan: Plan) -> dict[str, object]:
    """The plan for `--json`; keys are documented in docs/cli.md."""
    listing = plan.listing
    return {
        "job": plan.job.job.name,
        "fingerprint": plan.fingerprint,
        "model": {
            "path": plan.model.path,
            "sha256": plan.model.digest,
            "inputs": [str(spec) for spec in plan.model.inputs],
            "outputs": [str(spec) for spec in plan.model.outputs],
            "steps": [asdict(step) for step in steps_of(plan.model)],
        },
        "models": [
            {
                "name": member.name,
                "path": member.model.path,
                "sha256": member.model.digest,
                "inputs": {str(spec): member.sources[spec.name] for spec in member.model.inputs},
                "outputs": [str(spec) for spec in member.model.outputs],
                "steps": [asdict(step) for step in steps_of(member.model)],
            }
            for member in plan.model.members
        ],
        "input": {
            "format": listing.format,
            "files": len(listing.files),
            "bytes": sum(file.size for file in listing.files),
            "rows": plan.rows,
            "pruned_rows": plan.pruned_rows,
            "partitions": list(listing.partition_columns),
            "version": listing.version,
            "filter": plan.filter.text if plan.filter is not None else None,
        },
        "features": [_feature(binding) for binding in plan.features],
        "outputs": {
            name: None if kind is None else str(kind) for name, kind in written_columns((), plan.outputs)
        },
        "keep": [field.name for field in plan.keep],
        "shards": len(plan.shards),
        "batch_rows": plan.fixed_batch or plan.job.job.engine.batch_rows,
        "device": words_for(plan.device),
        "provider_options": dict(plan.device.options),
        "output": plan.output,
        "notes": list(plan.notes),
    }
