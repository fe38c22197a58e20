"""The process that may die: asks about one model after the other, and tells each answer at once."""

from __future__ import annotations

import pickle
from contextlib import suppress

from batchonnx.lifecycle.validate.questions import Finished, ask
from batchonnx.runtime.child import Pipe, parent


def _serve(pipe: Pipe) -> None:
    with suppress(EOFError, BrokenPipeError):
        pipe.send_bytes(pickle.dumps(Finished()))  # with the imports; they count for no question
        while True:
            asked = pickle.loads(pipe.recv_bytes())
            try:
                for told in ask(asked):
                    pipe.send_bytes(pickle.dumps(told))
            except Exception as error:  # handed over: the other end raises it
                pipe.send_bytes(pickle.dumps(error))


if __name__ == "__main__":
    _serve(parent())
