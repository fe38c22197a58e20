"""A model's graph as boxes and arrows: what is drawn of it, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from batchonnx.runtime.graph import element_name

MOST_BOXES = 3000
"""A graph of more nodes isn't drawn: nobody could see anything, and browsers give up."""

SWEEPS = 4
"""How often the boxes of each layer are put in the order of those that they hang on."""


@dataclass(frozen=True)
class Box:
    """A node, an input or an output.

    layer: how far from the inputs, from 0. place: among the boxes of its layer, from 0.
    kind: "input", "node" or "output". title: operator or name; details: lines about it.
    """

    layer: int
    place: int
    kind: str
    title: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class Arrow:
    """From a box to another, by their numbers. name: of the tensor."""

    start: int
    end: int
    name: str


@dataclass(frozen=True)
class Outline:
    """boxes: empty where there are too many to draw. nodes: of the main graph, constants left out."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    nodes: int


_Title = tuple[str, str, tuple[str, ...]]
"""A box's kind, title and details."""


def outline(model: onnx.ModelProto) -> Outline:
    """Lay out the main graph, in layers from inputs to outputs; constants are told with what takes them."""
    graph = model.graph
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    if len(nodes) > MOST_BOXES:
        return Outline((), (), len(nodes))
    constants = {tensor.name: _tensor(tensor) for tensor in graph.initializer}
    constants |= {
        name: "constant" for node in graph.node if node.op_type == "Constant" for name in node.output
    }
    inputs = [value for value in graph.input if value.name not in constants]
    made = {value.name: number for number, value in enumerate(inputs)}
    titles: list[_Title] = [("input", value.name, (_value(value),)) for value in inputs]
    arrows: list[Arrow] = []
    for node in nodes:
        number = len(titles)
        titles.append(("node", node.op_type, _details(node, constants)))
        arrows += [Arrow(made[name], number, name) for name in dict.fromkeys(node.input) if name in made]
        made.update(dict.fromkeys(filter(None, node.output), number))
    for value in graph.output:
        if value.name in made:
            arrows.append(Arrow(made[value.name], len(titles), value.name))
        titles.append(("output", value.name, (_value(value),)))
    layers = _layers(len(titles), arrows)
    places = _places(layers, arrows)
    boxes = tuple(
        Box(layers[number], places[number], kind, title, details)
        for number, (kind, title, details) in enumerate(titles)
    )
    return Outline(boxes, tuple(arrows), len(nodes))


def _layers(count: int, arrows: Sequence[Arrow]) -> list[int]:
    """One more than the last of those that it hangs on. Nodes stand in order, so that one pass is enough."""
    layers = [0] * count
    for arrow in arrows:  # sorted by end: each box's arrows come when all before it are settled
        layers[arrow.end] = max(layers[arrow.end], layers[arrow.start] + 1)
    return layers


def _places(layers: Sequence[int], arrows: Sequence[Arrow]) -> list[int]:
    """The order within each layer: at the mean place of what a box hangs on, so that few arrows cross."""
    rows: list[list[int]] = [[] for _ in range(max(layers, default=0) + 1)]
    for number, layer in enumerate(layers):
        rows[layer].append(number)
    before: dict[int, list[int]] = {}
    behind: dict[int, list[int]] = {}
    for arrow in arrows:
        before.setdefault(arrow.end, []).append(arrow.start)
        behind.setdefault(arrow.start, []).append(arrow.end)
    places = [0] * len(layers)
    for row in rows:
        _number(row, places)
    for sweep in range(SWEEPS):
        near = before if sweep % 2 == 0 else behind
        for row in rows if sweep % 2 == 0 else reversed(rows):
            row.sort(key=lambda number: _mean_place(number, near, places))
            _number(row, places)
    return places


def _mean_place(number: int, near: Mapping[int, Sequence[int]], places: Sequence[int]) -> float:
    others = near.get(number)
    return sum(places[other] for other in others) / len(others) if others else places[number]


def _number(row: Sequence[int], places: list[int]) -> None:
    for place, number in enumerate(row):
        places[number] = place


def _details(node: onnx.NodeProto, constants: Mapping[str, str]) -> tuple[str, ...]:
    lines = [node.name] if node.name else []
    lines += [f"domain {node.domain}"] if node.domain else []
    lines += [f"{name}: {constants[name]}" for name in node.input if name in constants]
    lines += [f"{attribute.name} = {_attribute(attribute)}" for attribute in node.attribute]
    return tuple(lines)


def _attribute(attribute: onnx.AttributeProto) -> str:
    if attribute.HasField("g"):
        return f"a graph of {len(attribute.g.node)} nodes"
    if attribute.HasField("t"):
        return _tensor(attribute.t)
    value = onnx.helper.get_attribute_value(attribute)
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _tensor(tensor: onnx.TensorProto) -> str:
    return f"{element_name(tensor.data_type)}{list(tensor.dims)}"


def _value(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return (value.type.WhichOneof("value") or "unknown").removesuffix("_type")
    dims = ", ".join(
        str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim
    )
    return f"{element_name(tensor.elem_type)}[{dims}]"
