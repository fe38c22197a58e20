"""The same model in another form: ONNX Runtime's own format, another opset, other files, fixed shapes."""

from batchonnx.lifecycle.convert.convert import Form, convert
from batchonnx.lifecycle.convert.mobile import Usability, mobile_usability

__all__ = ["Form", "Usability", "convert", "mobile_usability"]
