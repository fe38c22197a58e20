"""What goes to standard error beside the live view: warnings, or the whole log."""

from __future__ import annotations

import logging
from typing import Literal

from batchonnx.cli.screen import complain

LogFormat = Literal["text", "json"]


class _Screen(logging.Handler):
    """Standard error as it is at that moment: the live view has its own, and tests theirs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it."""
        complain(self.format(record))


class _Warnings(_Screen):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:  # errors are told as the command's end
            super().emit(record)


def show_warnings() -> None:
    """Print warnings, and nothing else."""
    handler = _Warnings(logging.WARNING)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    _have(handler)


def show_log(form: LogFormat) -> None:
    """Print all that is logged, from INFO on, in place of the live view."""
    from batchonnx.watch.logs import JsonFormatter, TextFormatter

    handler = _Screen()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    _have(handler)
    logging.getLogger("batchonnx").setLevel(logging.INFO)


def _have(handler: logging.Handler) -> None:
    logger = logging.getLogger("batchonnx")
    for former in [one for one in logger.handlers if isinstance(one, _Screen)]:
        logger.removeHandler(former)
    logger.addHandler(handler)
