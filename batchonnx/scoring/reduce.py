"""Outputs made smaller on the device that gives them: what is pooled, ranked or picked never leaves it whole.

What `outputs` asks for becomes a small graph behind the model, with the same meaning as `scoring.decode` and
`scoring.pooling` have; what ONNX can't say, or what isn't about rows of floats, is left to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batchonnx.planning.bindings import OutputBinding, TextColumn
from batchonnx.planning.plan import Plan
from batchonnx.planning.sounds import windowed
from batchonnx.planning.texts import text_of
from batchonnx.runtime.lanes import Tail
from batchonnx.runtime.session import Model
from batchonnx.runtime.signature import TensorSpec
from batchonnx.scoring.decode.vectors import INT8_SCALE, SMALLEST
from batchonnx.scoring.pooling import MASK

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 18, 9
"""Known to every ONNX Runtime that we run with."""


@dataclass(frozen=True)
class Reduced:
    """What is left to do with what comes back. tail: what makes it; None if nothing does.

    outputs: the job's columns, each bound to what the tail gives where that does a part of the work.
    """

    outputs: tuple[OutputBinding, ...]
    tail: Tail | None = None


def reduce_outputs(plan: Plan, model: Model) -> Reduced:
    """Which part of the outputs' work a model's device does; on the CPU none: there nothing is copied."""
    if model.lanes is None or not model.lanes.keeps or windowed(plan.features) is not None:
        return Reduced(plan.outputs)
    return reduce_all(plan.outputs, plan.model.inputs, text_of(plan.features))


def reduce_all(
    outputs: Iterable[OutputBinding], inputs: Sequence[TensorSpec], text: TextColumn | None
) -> Reduced:
    """Whatever can be. inputs: the model's. text: the feature that is tokenized."""
    graph = _Graph({spec.name: spec for spec in inputs}, text)
    bound = tuple(graph.add(binding) if _is_reducible(binding) else binding for binding in outputs)
    return Reduced(bound, graph.tail() if graph.outputs else None)


def _is_reducible(binding: OutputBinding) -> bool:
    spec = binding.source
    is_plain = spec.kind == "tensor" and binding.batch_axis == 0 and binding.row_shape is not None
    is_plain = is_plain and not (binding.of_windows or binding.others or binding.counted or binding.detection)
    if not is_plain or binding.function is not None or spec.dtype not in ("float16", "float32", "float64"):
        return False
    if binding.pool is not None and len(spec.shape or ()) != 3:
        return False
    ranks = binding.argmax or binding.top_k is not None or binding.index is not None
    if ranks and len(binding.row_shape or ()) != 1:
        return False
    shrinks = ranks or binding.pool is not None or binding.precision in ("float16", "int8")
    return shrinks or binding.softmax or binding.sigmoid or binding.normalize


@dataclass
class _Graph:
    """A tail under construction. inputs: of the model, by name."""

    inputs: dict[str, TensorSpec]
    text: TextColumn | None
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    sources: dict[str, TensorSpec] = field(default_factory=dict)
    fed: dict[str, TensorSpec] = field(default_factory=dict)
    outputs: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name -> dtype, and the value that it is."""

    def add(self, binding: OutputBinding) -> OutputBinding:
        """Do a column's work; gives what is left of it."""
        spec = binding.source
        self.sources[spec.name] = spec
        x, dtype, shape = spec.name, spec.dtype, binding.row_shape
        works = binding.softmax or binding.sigmoid or binding.normalize or binding.pool is not None
        if dtype == "float16" and works:
            x, dtype = self.cast(x, "float32"), "float32"
        if binding.pool is not None:
            x = self.pooled(x, dtype, binding.pool)
        if binding.softmax:
            x = self.node("Softmax", [x], axis=-1)
        elif binding.sigmoid:
            x = self.node("Sigmoid", [x])
        elif binding.normalize:
            x = self.normalized(x, dtype)
        precision = binding.precision
        if precision in ("float16", "int8"):
            x, dtype, precision = self.packed(x, dtype, precision), precision, None
        done = replace(binding, pool=None, softmax=False, sigmoid=False, normalize=False, precision=precision)
        if binding.argmax:
            places = self.node("ArgMax", [x], axis=1, keepdims=0)
            places = self.unless_nan(x, places, keepdims=0)
            return replace(done, source=self.give(binding, places, "int64", ()), row_shape=(), is_placed=True)
        if binding.top_k is not None:
            k = self.constant([binding.top_k], "int64")
            if shape == (None,):
                k = self.node("Min", [self.width(x), k])
            top, places = self.nodes_of("TopK", [x, k], 2, axis=1, largest=1, sorted=1)
            places = self.unless_nan(x, places, keepdims=1)
            source = self.give(binding, top, dtype, (None,))
            other = self.give(binding, places, "int64", (None,), "places of ")
            return replace(done, source=source, others=(other,), row_shape=(None,), is_placed=True)
        if binding.index is not None:
            x, shape = self.node("Gather", [x, self.constant(binding.index, "int64")], axis=1), ()
            done = replace(done, index=None)
        return replace(done, source=self.give(binding, x, dtype, shape or ()), row_shape=shape)

    def pooled(self, x: str, dtype: str, pool: str) -> str:
        """[n, t, k] -> [n, k]; see `scoring.pooling`."""
        mask = self.mask()
        if mask is None:
            if pool == "mean":
                return self.node("ReduceMean", [x, self.constant([1], "int64")], keepdims=0)
            return self.node("Gather", [x, self.constant(0 if pool == "cls" else -1, "int64")], axis=1)
        if pool == "mean":
            wide = self.node("Unsqueeze", [mask, self.constant([2], "int64")])
            axes = self.constant([1], "int64")
            total = self.node(
                "ReduceSum", [self.node("Where", [wide, x, self.constant(0, dtype)]), axes], keepdims=0
            )
            counts = self.node("ReduceSum", [self.cast(mask, dtype), axes], keepdims=1)
            return self.node("Div", [total, self.node("Max", [counts, self.constant(1, dtype)])])
        number = self.cast(mask, "float32")  # CUDA ranks no integers
        place = self.node("ArgMax", [number], axis=1, keepdims=1, select_last_index=int(pool == "last"))
        return self.node("GatherND", [x, place], batch_dims=1)

    def mask(self) -> str | None:
        """bool[n, t]: which tokens count; None: all."""
        if MASK in self.inputs:
            self.fed[MASK] = self.inputs[MASK]
            return self.cast(MASK, "bool")
        if self.text is None or not self.text.lengths:
            return None
        ids = self.text.inputs[0]
        self.fed[ids.name] = ids
        return self.node("Not", [self.node("Equal", [ids.name, self.constant(self.text.pad_id, ids.dtype)])])

    def normalized(self, x: str, dtype: str) -> str:
        """[…, k] over its length."""
        length = self.node("ReduceL2", [x, self.constant([-1], "int64")], keepdims=1)
        return self.node("Div", [x, self.node("Max", [length, self.constant(SMALLEST, dtype)])])

    def packed(self, x: str, dtype: str, precision: str) -> str:
        """In fewer bits; see `scoring.decode.vectors`."""
        if precision == "float16":
            return self.cast(x, "float16")
        scaled = self.node("Round", [self.node("Mul", [x, self.constant(INT8_SCALE, dtype)])])
        whole = self.node("Where", [self.node("IsNaN", [scaled]), self.constant(0, dtype), scaled])
        ends = [self.constant(-INT8_SCALE, dtype), self.constant(INT8_SCALE, dtype)]
        return self.cast(self.node("Clip", [whole, *ends]), "int8")

    def unless_nan(self, x: str, places: str, keepdims: int) -> str:
        """Places in rows of scores; -1 in those with a NaN."""
        found = self.cast(self.node("IsNaN", [x]), "float32")
        found = self.node("ReduceMax", [found, self.constant([1], "int64")], keepdims=keepdims)
        return self.node("Where", [self.cast(found, "bool"), self.constant(-1, "int64"), places])

    def width(self, x: str) -> str:
        """int64[1]: how many scores a row has."""
        return self.node("Shape", [x], start=1, end=2)

    def give(
        self, binding: OutputBinding, x: str, dtype: str, shape: tuple[Any, ...], of: str = ""
    ) -> TensorSpec:
        """Have a value come back; its name is no model output's."""
        name = f"{of}column {binding.name}"
        while name in self.sources:
            name += "'"
        self.outputs[name] = (dtype, x)
        return TensorSpec(name, dtype, (None, *shape))

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """The one output of a new node."""
        return self.nodes_of(kind, inputs, 1, **attributes)[0]

    def nodes_of(self, kind: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """The outputs of a new node."""
        from onnx import helper

        names = [f"/tail/{len(self.nodes)}/{number}" for number in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def cast(self, x: str, dtype: str) -> str:
        """As another type."""
        return self.node("Cast", [x], to=_element(dtype))

    def constant(self, value: Any, dtype: str) -> str:
        """A value that is known."""
        import numpy as np
        from onnx import numpy_helper

        name = f"/tail/constant/{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, np.dtype(dtype)), name))
        return name

    def tail(self) -> Tail:
        """All that was added."""
        from onnx import helper

        ends = [helper.make_node("Identity", [value], [name]) for name, (_, value) in self.outputs.items()]
        graph = helper.make_graph(
            [*self.nodes, *ends],
            "tail",
            [_info(spec) for spec in (self.sources | self.fed).values()],
            [
                helper.make_tensor_value_info(n, _element(dtype), None)
                for n, (dtype, _) in self.outputs.items()
            ],
            self.constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        return Tail(made.SerializeToString(), tuple(self.sources), tuple(self.fed), tuple(self.outputs))


def _info(spec: TensorSpec) -> onnx.ValueInfoProto:
    from onnx import helper

    # Of its dimensions only their number: exporters get the rest wrong, and rows vary.
    dims = [None] * len(spec.shape) if spec.shape is not None else None
    return helper.make_tensor_value_info(spec.name, _element(spec.dtype), dims)


def _element(dtype: str) -> int:
    import numpy as np
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
