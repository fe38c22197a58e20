"""A framework's model as an ONNX file, compared with the framework on the same rows."""

from batchonnx.lifecycle.export.draft import Request
from batchonnx.lifecycle.export.export import Exported, export_model
from batchonnx.lifecycle.export.input_spec import parse_input

__all__ = ["Exported", "Request", "export_model", "parse_input"]
