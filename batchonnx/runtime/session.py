"""The seam to ONNX Runtime: nothing else imports it to score rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from batchonnx.errors import ModelFileError, Problem
from batchonnx.runtime.diagnose import diagnose, external_files
from batchonnx.runtime.signature import Dim, ModelSignature, TensorSpec
from batchonnx.runtime.wheels import require_onnxruntime
from batchonnx.storage.paths import local_copy

_DTYPES = {"float": "float32", "double": "float64"}
_ONLY_ERRORS = 3


class PredictError(Exception):
    """The model failed on a batch; ONNX Runtime's own words."""


class Cancelled(Exception):
    """The call was ended by `Model.cancel`."""


class Model:
    """An ONNX model that is ready to run; safe to share between threads.

    signature: its inputs and outputs, as declared or inferred.
    """

    def __init__(self, session: Any, signature: ModelSignature) -> None:
        import onnxruntime

        self._session, self.signature = session, signature
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = _ONLY_ERRORS
        self._is_cancelled = False

    def run(self, output_names: Sequence[str], tensors: Mapping[str, np.ndarray]) -> list[Any]:
        """Outputs in the order asked: arrays, or lists of dicts for sequences of maps.

        tensors: C-contiguous arrays, not copied. The arrays given back are fresh.
        Raises PredictError where the model fails, Cancelled after `cancel`.
        """
        try:
            return list(self._session.run(output_names, tensors, self._options))
        except Exception as error:
            # ONNX Runtime's classes derive from Exception and live in a private module.
            if self._is_cancelled:
                raise Cancelled from error
            raise PredictError(clean(str(error))) from error

    def cancel(self) -> None:
        """End the calls in flight, and all later ones, within about 0.1 s."""
        self._is_cancelled = True
        self._options.terminate = True


def clean(message: str) -> str:
    """ONNX Runtime's message without its prefix, source paths and trailing blanks."""
    message = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message.strip())
    message = re.sub(r"\S*onnxruntime/\S+:\d+ [^\n]*?\) ", "", message)
    return re.sub(r"\s+", " ", message).strip()[:600]


def open_model(path: str, *, threads: int = 1, sha256: str | None = None) -> Model:
    """Load a model for the CPU. threads: used by one call. sha256: refuse any other file.

    path: absolute, or a URL. Raises ModelFileError naming what is wrong with the file, and
    DependencyError if ONNX Runtime isn't installed.
    """
    require_onnxruntime()
    import onnxruntime

    local = local_copy(path, ModelFileError, "the model")
    content = _read(local, path)
    digest = hashlib.sha256(content)
    if sha256 is not None and digest.hexdigest() != sha256:
        facts = {"model": path, "expected": f"sha256 {sha256}", "found": f"sha256 {digest.hexdigest()}"}
        fix = "restore the model, or pin its new digest in model.sha256"
        raise ModelFileError(Problem("the model isn't the one that was pinned", facts, fix))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ONLY_ERRORS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(local), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise diagnose(path, local, content, clean(str(error))) from error
    size = len(content)
    for name in external_files(content):
        size += _add_file(digest, local.parent / name)
    meta = session.get_modelmeta()
    signature = ModelSignature(
        path=path,
        digest=digest.hexdigest(),
        bytes=size,
        inputs=tuple(_spec(arg) for arg in session.get_inputs()),
        outputs=tuple(_spec(arg) for arg in session.get_outputs()),
        producer=meta.producer_name,
        metadata=dict(meta.custom_metadata_map),
    )
    return Model(session, signature)


def _read(local: Path, path: str) -> bytes:
    try:
        return local.read_bytes()
    except OSError as error:
        facts = {"model": path, "found": error.strerror or str(error)}
        raise ModelFileError(Problem("the model can't be read", facts, "correct model.path")) from error


def _add_file(digest: Any, path: Path) -> int:
    size = 0
    with suppress(OSError), path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return size


def _spec(arg: Any) -> TensorSpec:
    """ONNX Runtime's description of an input or output: `tensor(float)`, `seq(map(int64,tensor(float)))`."""
    if match := re.fullmatch(r"tensor\((\w+)\)", arg.type):
        return TensorSpec(arg.name, _dtype(match[1]), _shape(arg.shape))
    if match := re.fullmatch(r"seq\(map\((\w+),tensor\((\w+)\)\)\)", arg.type):
        return TensorSpec(arg.name, _dtype(match[2]), None, "maps", match[1])
    return TensorSpec(arg.name, arg.type, None, "other")


def _dtype(name: str) -> str:
    return _DTYPES.get(name, name)


def _shape(shape: Sequence[Dim] | None) -> tuple[Dim, ...] | None:
    return None if shape is None else tuple(shape)
