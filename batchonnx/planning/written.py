"""What a plan's parts hold, and how they are written; all output types have to be known."""

from __future__ import annotations

import pyarrow as pa

from batchonnx.parts.layout import Layout, encoded
from batchonnx.planning.lines import line_columns, written_columns
from batchonnx.planning.plan import Plan


def layout_of(plan: Plan) -> Layout:
    """How parts are written."""
    keys = tuple(plan.job.job.output.partition_by)
    exploded = tuple(name for b in plan.outputs if b.explode for name, _ in line_columns(b))
    return Layout(plan.part_format, plan.compression, keys, encoded(output_schema(plan)), exploded)


def output_schema(plan: Plan) -> pa.Schema:
    """The schema of every part."""
    kept = {field.name: field for field in plan.keep}
    columns = written_columns(plan.keep, plan.outputs)
    return pa.schema([kept.get(name, pa.field(name, kind)) for name, kind in columns])
