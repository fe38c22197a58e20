"""The section `session`."""

from __future__ import annotations

from pydantic import Field

from batchonnx.job.spec.section import Place, Section

EXTENSIONS = "onnxruntime-extensions"
"""The one library of operators that goes by its package's name, wherever that is installed."""


class Session(Section):
    """What each session of ONNX Runtime is given."""

    custom_ops: Place | list[Place] = Field(
        [],
        description="Libraries of operators that ONNX Runtime hasn't: files, relative to the job file, or "
        "onnxruntime-extensions, the package. They run any code: name none that you don't trust.",
    )

    @property
    def libraries(self) -> list[str]:
        """One or several, as a list."""
        return [self.custom_ops] if isinstance(self.custom_ops, str) else self.custom_ops
