"""Several models as one: each feeds on inputs of the whole and on outputs of the models before it.

To all that runs a model a chain is one: its session runs the members' sessions one after the other, in
the thread that calls, so that they share what cores it has. What lies between them never leaves memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from batchonnx.runtime.device import CPU, Device
from batchonnx.runtime.diagnose import clean
from batchonnx.runtime.placement import all_placements
from batchonnx.runtime.session import Model, PredictError, open_model
from batchonnx.runtime.signature import Member, ModelSignature, TensorSpec, output_key


def chain(members: Sequence[Member], inputs: Sequence[TensorSpec], models: Sequence[Model]) -> Model:
    """One model out of several. inputs: the chain's own. models: of the members, one for each."""
    return Model(
        _ChainSession([(member, model.session) for member, model in zip(members, models, strict=True)]),
        _signature(members, inputs),
        max(model.threads for model in models),
        models[0].device,
        all_placements([model.placement for model in models if model.placement is not None]),
    )


def open_again(signature: ModelSignature, threads: int, device: Device = CPU) -> Model:
    """The very model or chain that a plan was made for. Raises ModelFileError where it is another by now."""
    if not signature.members:
        return open_model(signature.path, threads=threads, sha256=signature.digest, device=device)
    models = [
        open_model(member.model.path, threads=threads, sha256=member.model.digest, device=device)
        for member in signature.members
    ]
    return chain(signature.members, signature.inputs, models)


def _signature(members: Sequence[Member], inputs: Sequence[TensorSpec]) -> ModelSignature:
    told = [(member.name, member.model.digest, sorted(member.sources.items())) for member in members]
    fed = [member.model for member in members if set(member.sources.values()) & {one.name for one in inputs}]
    return ModelSignature(
        path=", ".join(member.model.path for member in members),
        digest=hashlib.sha256(json.dumps(told).encode()).hexdigest(),
        bytes=sum(member.model.bytes for member in members),
        inputs=tuple(inputs),
        outputs=tuple(
            TensorSpec(output_key(member.name, spec.name), spec.dtype, spec.shape, spec.kind, spec.key_dtype)
            for member in members
            for spec in member.model.outputs
        ),
        # Names of columns, for one: they speak of the chain's inputs only where those are one model's.
        metadata=fed[0].metadata if len(fed) == 1 else {},
        members=tuple(members),
    )


class _ChainSession:
    """Runs sessions one after the other; called as each of them is."""

    def __init__(self, members: Sequence[tuple[Member, Any]]) -> None:
        self._members = members
        self._calls: dict[tuple[str, ...], list[_Call]] = {}

    def run(self, names: Sequence[str], tensors: Mapping[str, np.ndarray], options: Any) -> list[Any]:
        asked = tuple(names)
        calls = self._calls.get(asked)
        if calls is None:
            calls = self._calls[asked] = _calls(self._members, asked)
        known: dict[str, Any] = dict(tensors)
        for call in calls:
            feed = {name: known[source] for name, source in call.sources}
            try:
                values = call.session.run(call.outputs, feed, options)
            except Exception as error:
                # Whatever ONNX Runtime raises; it doesn't know which of the models it runs.
                raise PredictError(f"{call.member}: {clean(str(error))}") from error
            known.update(zip(call.keys, values, strict=True))
        return [known[name] for name in asked]


class _Call:
    """What one member is asked for, and with what."""

    def __init__(self, member: Member, session: Any, keys: Sequence[str]) -> None:
        self.member, self.session, self.keys = member.name, session, keys
        self.outputs = [key.removeprefix(output_key(member.name, "")) for key in keys]
        self.sources = list(member.sources.items())


def _calls(members: Sequence[tuple[Member, Any]], asked: Sequence[str]) -> list[_Call]:
    """The calls that the asked outputs need, in order; members that nothing asks for aren't run."""
    wanted = set(asked)
    calls: list[_Call] = []
    for member, session in reversed(members):
        keys = [output_key(member.name, spec.name) for spec in member.model.outputs]
        keys = [key for key in keys if key in wanted]
        if keys:
            wanted.update(member.sources.values())
            calls.append(_Call(member, session, keys))
    return calls[::-1]
