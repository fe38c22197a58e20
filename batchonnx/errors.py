"""The vocabulary of what can go wrong.

Every error carries fields, not a formatted string: the command line renders them, `--json`
dumps them, and tests match on them. One class for each kind of trouble; the class decides the
exit code (see `docs/cli.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, told to the person who can mend it.

    title: one sentence that names the culprit: `feature "x" is 27 wide, the model wants 28`.
    facts: label -> text, in the order to show: job, model, file, column, row, expected, found.
    fix: the next step, in the imperative.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    fix: str = ""

    def __str__(self) -> str:
        width = max((len(label) for label in (*self.facts, "fix")), default=0)
        lines = [self.title, *(f"  {label:<{width}}  {text}" for label, text in self.facts.items())]
        if self.fix:
            lines.append(f"  {'fix':<{width}}  {self.fix}")
        return "\n".join(lines)


class BatchonnxError(Exception):
    """Trouble that is not a bug of batchonnx: shown without a traceback.

    problems: everything that was found in one go, at least one.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems: tuple[Problem, ...] = problems

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.problems))

    def as_dict(self) -> dict[str, object]:
        """The error as JSON-ready fields, for `--json`."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "problems": [asdict(problem) for problem in self.problems],
        }


class JobFileError(BatchonnxError):
    """The job file can't be read, or says something that no job can say."""


class ContractError(BatchonnxError):
    """Model, data and job don't fit together; raised by `plan`, before any row is scored."""


class ModelFileError(BatchonnxError):
    """The model is missing or isn't a model that ONNX Runtime can load."""


class ExportError(BatchonnxError):
    """What is to be exported is missing, isn't trusted, or is something that no exporter takes."""


class HookError(BatchonnxError):
    """A `python:` function can't be imported, raised, or returned something unusable."""


class DependencyError(BatchonnxError):
    """A package that this job needs isn't installed, or two that exclude each other are."""


class DeviceError(BatchonnxError):
    """The device that a job asks for can't be used here, or leaves to the CPU what it mustn't."""

    exit_code = 3


class OutputExistsError(BatchonnxError):
    """The output already holds a result, and the job doesn't say `overwrite`."""


class OutputBusyError(BatchonnxError):
    """Another run is writing the same output."""

    exit_code = 3


class ChangedError(BatchonnxError):
    """An unfinished run of this output was of another model, other settings or another input."""


class ProofError(BatchonnxError):
    """What `verify` found wrong with a result."""

    exit_code = 4


class GateError(BatchonnxError):
    """A result that is complete but not what the job's gate lets pass; it is kept, unpublished."""

    exit_code = 4


class HookRaised(HookError):
    """A `python:` function raised on some rows; it may be a few rows' fault."""


class InputError(BatchonnxError):
    """Input that is missing, unreadable, corrupt or not what the plan saw."""

    exit_code = 3


class ClusterError(BatchonnxError):
    """No cluster at the address, or one that refuses, has no place for workers, or loses them or the job."""

    exit_code = 3


class DriverError(BatchonnxError):
    """A submitted job didn't end well; it ends the command that waited for it with its own exit code."""

    def __init__(self, exit_code: int, *problems: Problem) -> None:
        super().__init__(*problems)
        self.exit_code = exit_code  # type: ignore[misc]  # of one job, not of the class


class RowError(InputError):
    """A row that can't be encoded or scored, named by file and row index."""


class StorageError(BatchonnxError):
    """The world refused a read or a write: no such place, no permission, a full disk."""

    exit_code = 3


class Interrupted(BatchonnxError):
    """Ctrl-C or SIGTERM: workers were stopped, nothing was published; the same run can go on."""

    exit_code = 130
