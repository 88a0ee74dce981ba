"""ONNX Runtime sessions that run a model's regions with code of ours.

    options = ort_optim.session_options("model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", options)      # or, in one step:
    session = ort_optim.InferenceSession("model.onnx")
    ort_optim.stats(session)

Nothing here can make a model unusable: whatever stands against running a region is logged, and the
region is left to ONNX Runtime, which runs the standard nodes in its body.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnx import ModelProto

from ort_optim.compiler.cache import CodeCache
from ort_optim.engine import Extension
from ort_optim.errors import InputError, OrtOptimError
from ort_optim.graph.regions import DOMAIN
from ort_optim.hardware import Target, detect
from ort_optim.runtime import library
from ort_optim.runtime.outline import MalformedError, outline
from ort_optim.runtime.prepare import INTERNAL, Prepared, prepare
from ort_optim.runtime.stats import (
    ALL,
    REGISTRATION,
    SessionStats,
    entry,
    note,
    noted,
    read_stats,
)

log = logging.getLogger("ort_optim")

PROGRESS_SECONDS = 2.0

CPU = "CPUExecutionProvider"
OUR_PROVIDERS = frozenset({CPU, "AzureExecutionProvider"})
"""Execution providers beside which regions run; Azure's takes nodes of its own domain alone."""

Model = str | os.PathLike[str] | bytes | ModelProto


def session_options(
    model: Model,
    base: ort.SessionOptions | None = None,
    *,
    providers: Sequence[Any] | None = None,
) -> ort.SessionOptions:
    """Session options with which ONNX Runtime runs the regions of `model` with code of ours.

    `base` itself is completed and returned; nothing that is set in it changes. `providers` are
    those the session will be given: where one but the CPU's takes part, the regions are left to
    it. The first call on a machine compiles, which takes seconds; later ones find the code cached.

    Raises InputError where the model can't be read.
    """
    options = ort.SessionOptions() if base is None else base
    return _complete(options, _parsed(model), providers)


class InferenceSession(ort.InferenceSession):  # type: ignore[misc]
    """`onnxruntime.InferenceSession` with the regions of its model run by code of ours.

    Takes what that takes; `sess_options` are completed as `session_options` does it.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes,
        sess_options: ort.SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        **arguments: Any,
    ) -> None:
        options = ort.SessionOptions() if sess_options is None else sess_options
        _complete(options, _parsed(path_or_bytes), providers)
        if providers is None and not _has_providers(options):
            providers = [CPU]
        super().__init__(path_or_bytes, options, providers, provider_options, **arguments)


def stats(session: ort.InferenceSession) -> SessionStats:
    """What the regions of a session did so far, and which ones ONNX Runtime runs, and why."""
    return read_stats(session.get_session_options())


def _complete(
    options: ort.SessionOptions, model: ModelProto, providers: Sequence[Any] | None
) -> ort.SessionOptions:
    if not any(each.domain == DOMAIN for each in model.functions):
        return options
    if entry(options, REGISTRATION) is not None:
        if noted(options) in ({ALL}, {f.name for f in model.functions if f.domain == DOMAIN}):
            return options
        raise InputError(
            "these session options are those of another model: give fresh ones to each model"
        )
    reason = _general_reason(options, providers)
    if reason is not None:
        return _leave_all(options, reason)
    try:
        prepared = prepare(model, _machine(), _threads(options), CodeCache(), progress=_Progress())
        registration = _register(options, prepared.extension)
    except (OSError, RuntimeError, OrtOptimError) as error:  # no folder for code, a code file gone
        return _leave_all(options, str(error))
    except Exception as error:  # of ours; the model still runs
        log.warning("the regions of the model can't be compiled", exc_info=True)
        return _leave_all(options, f"{INTERNAL}: {error!r}")
    _tell(prepared)
    note(options, registration, [plan.name for plan in prepared.plans], prepared.left)
    return options


def _register(options: ort.SessionOptions, extension: Extension | None) -> int | None:
    """Let the session have the regions; the number of their registration."""
    if extension is None:
        return None
    registration = library.stage(extension.blob)
    options.register_custom_ops_library(os.fspath(extension.library))
    return registration


def _leave_all(options: ort.SessionOptions, reason: str) -> ort.SessionOptions:
    log.warning("all regions are left to ONNX Runtime: %s", reason)
    note(options, None, (), {ALL: reason})
    return options


class _Progress:
    """Says that kernels are being compiled, and from time to time how many are done: the first
    session on a machine takes seconds."""

    def __init__(self) -> None:
        self._told_at: float | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._told_at is None:
            log.warning("compiling %d kernels for this machine, once", total)
        elif now - self._told_at > PROGRESS_SECONDS:
            log.warning("%d of %d kernels are compiled", done, total)
        else:
            return
        self._told_at = now


def _general_reason(options: ort.SessionOptions, providers: Sequence[Any] | None) -> str | None:
    """Why no region of any model may run in this session."""
    if reason := library.unavailable_reason():
        return reason
    names = [each if isinstance(each, str) else each[0] for each in providers or ()]
    if others := [name for name in names if name not in OUR_PROVIDERS]:
        return f"{others[0]} may take them"
    if not names and _has_providers(options):
        return "the session options name execution providers"
    if options.optimized_model_filepath:
        return "the optimized model, which ONNX Runtime is to write, would lack their bodies"
    return None


def _has_providers(options: ort.SessionOptions) -> bool:
    """Whether options name providers themselves; those of old versions can't."""
    return hasattr(options, "has_providers") and bool(options.has_providers())


def _tell(prepared: Prepared) -> None:
    if prepared.moved_from is not None:
        log.info("templates are chosen anew: the model was made for %s", prepared.moved_from)
    for name, reason in prepared.left.items():
        log.warning("region %s is left to ONNX Runtime: %s", name, reason)


@functools.cache
def _machine() -> Target:
    return detect()


def _threads(options: ort.SessionOptions) -> int:
    """Workers of the session's intra-op pool: like ORT, the physical cores if none are stated."""
    return int(options.intra_op_num_threads) or _machine().physical_cores


def _parsed(model: Model) -> ModelProto:
    """The model, without the larger weights of its main graph where it is not parsed yet."""
    if isinstance(model, ModelProto):
        return model
    try:
        with io.BytesIO(model) if isinstance(model, bytes) else Path(model).open("rb") as file:
            return onnx.load_model_from_string(outline(file))
    except OSError as error:
        raise InputError(f"{model!s} can't be read: {error.strerror or error}") from error
    except (MalformedError, DecodeError, MemoryError) as error:
        raise InputError(f"the model can't be parsed: {error}") from error
