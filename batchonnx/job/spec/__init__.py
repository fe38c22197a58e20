"""The job file as frozen, strict pydantic models: the single place that says what a job can say.

One module for each section of the file. Descriptions end up in the JSON Schema, so an editor shows them while
the file is written.
"""

from batchonnx.job.spec.audio import Audio, State
from batchonnx.job.spec.detect import Detect
from batchonnx.job.spec.engine import RAY_ONLY, Engine, Resources, Span
from batchonnx.job.spec.features import BytesWindow, Feature
from batchonnx.job.spec.image import Image
from batchonnx.job.spec.job import Dependencies, Job, JobFile
from batchonnx.job.spec.limits import Check, Errors
from batchonnx.job.spec.outputs import Output, Pool, Precision
from batchonnx.job.spec.result import Result
from batchonnx.job.spec.schedule import Schedule
from batchonnx.job.spec.section import PASSWORD, Scalar, Section
from batchonnx.job.spec.session import Session
from batchonnx.job.spec.source import ChainedModel, Input, Model, Table
from batchonnx.job.spec.storage import Storage
from batchonnx.job.spec.telling import Metrics, Notice, Notify

__all__ = [
    "PASSWORD",
    "RAY_ONLY",
    "Audio",
    "BytesWindow",
    "ChainedModel",
    "Check",
    "Dependencies",
    "Detect",
    "Engine",
    "Errors",
    "Feature",
    "Image",
    "Input",
    "Job",
    "JobFile",
    "Metrics",
    "Model",
    "Notice",
    "Notify",
    "Output",
    "Pool",
    "Precision",
    "Resources",
    "Result",
    "Scalar",
    "Schedule",
    "Section",
    "Session",
    "Span",
    "State",
    "Storage",
    "Table",
]
