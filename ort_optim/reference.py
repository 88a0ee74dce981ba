"""The model that a result is held against: the input as it is, else its repaired copy.

open_reference    tries both in ONNX Runtime and says which of them runs, or why none does
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnx import ModelProto

from ort_optim.engine import Engine, EngineError, ModelSource, Spill, make_source
from ort_optim.errors import InputError, WorkerError
from ort_optim.graph import LoadedModel

BEYOND_THIS_ORT = (
    "is not a registered function/op",
    "NOT_IMPLEMENTED",
    "is under development",
    "Unsupported model IR version",
    "is not supported in this build",
    "No opset import for domain",
)
"""What ORT says of models that are sound but need kernels, operator sets or versions it lacks."""

LONGEST_REASON = 300  # characters of an ORT message that are worth showing

_SOURCE_LOCATION = re.compile(
    r"/\S*onnxruntime\S*:\d+ "  # file and line, then the function
    r"(?:[\w:<>*&~, ]*::~?\w+\((?:[^()]|\([^()]*\))*\)(?: const)?(?: \[with [^\]]*\])? )?"
)


@dataclass(frozen=True)
class Reference:
    """The reference, open in the engine with graph optimizations off as `session`."""

    model: ModelProto
    source: ModelSource
    session: int


@dataclass(frozen=True)
class Unrunnable:
    """A model that may be sound, but that this ORT can't run, and why."""

    reason: str


def open_reference(
    engine: Engine, original: LoadedModel, repaired: ModelProto, spill: Spill
) -> Reference | Unrunnable:
    """Open the original, else its repaired copy. Raises InputError if ORT finds both invalid."""
    said: list[str] = []
    for model in (original.model, repaired):
        source = make_source(model, original.folder, spill)
        try:
            return Reference(model, source, engine.open(source))
        except WorkerError as error:
            return Unrunnable(shorten(str(error)))
        except EngineError as error:
            said.append(str(error))
    for complaint in said:
        if any(mark in complaint for mark in BEYOND_THIS_ORT):
            return Unrunnable(shorten(complaint))
    raise InputError(
        f"{original.path} is not a valid model, ONNX Runtime says: {shorten(said[-1])}"
    )


def shorten(message: str) -> str:
    """An ORT message on one line, without the file and function that it was written in.

    Of a long one, the middle is left out: what is at fault stands at the end.
    """
    line = _SOURCE_LOCATION.sub("", " ".join(message.split()))
    if len(line) <= LONGEST_REASON:
        return line
    half = LONGEST_REASON // 2 - 2
    return f"{line[:half].rstrip()} … {line[-half:].lstrip()}"
