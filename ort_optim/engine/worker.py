"""The worker process: `python -m ort_optim.engine.worker`, spoken to over stdin and stdout.

It reads pickled `(verb, arguments)` pairs, calls the method of that name on `Sessions` and
answers with a `Reply`; the first one, unasked, says that it is up. A crash or an endless loop
inside ONNX Runtime ends this process only.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pickle
import queue
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnxruntime as ort

from ort_optim.engine import values
from ort_optim.engine.wire import Extension, ModelSource, Reply, TensorInfo, Value

LOG_FATAL = 4
SAMPLE_SECONDS = 1e-3  # a timing sample lasts at least about this long
MAX_REPEATS = 200


class Sessions:
    """The sessions of this process, by handle. Each public method is a verb of the wire."""

    def __init__(self) -> None:
        self._sessions: dict[int, ort.InferenceSession] = {}
        self._mapped: dict[int, list[Any]] = {}
        self._next_handle = itertools.count(1)

    def open(self, source: ModelSource, optimize: bool, threads: int) -> int:
        """Create a session; `optimize` switches all of ORT's graph optimizations on or off."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = LOG_FATAL
        options.graph_optimization_level = (
            ort.GraphOptimizationLevel.ORT_ENABLE_ALL
            if optimize
            else ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        )
        mapped = [values.map_blob(blob) for blob in source.blobs]
        if mapped:
            options.add_external_initializers([blob.name for blob in source.blobs], mapped)
        if source.extension is not None:
            _register(options, source.extension)
        model = source.proto if source.proto is not None else str(source.path)
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        handle = next(self._next_handle)
        self._sessions[handle] = session
        self._mapped[handle] = mapped
        return handle

    def close(self, handle: int) -> None:
        """Forget the session; an unknown handle is ignored."""
        self._sessions.pop(handle, None)
        self._mapped.pop(handle, None)

    def inputs(self, handle: int) -> tuple[TensorInfo, ...]:
        """What the session must be fed."""
        return tuple(_info(arg) for arg in self._sessions[handle].get_inputs())

    def outputs(self, handle: int) -> tuple[TensorInfo, ...]:
        """What the session gives back."""
        return tuple(_info(arg) for arg in self._sessions[handle].get_outputs())

    def run(
        self, handle: int, feeds: Mapping[str, Value], outputs: Sequence[str] | None
    ) -> dict[str, Value]:
        """The named outputs, or all of them."""
        session = self._sessions[handle]
        types = {arg.name: arg.type for arg in session.get_outputs()}
        names = list(outputs) if outputs is not None else list(types)
        plain = [name for name in names if values.numpy_can_hold(types[name])]
        bound = values.to_ort(feeds)
        results: dict[str, Value] = {}
        if plain:
            results.update(zip(plain, session.run(plain, bound), strict=True))
        if exotic := [name for name in names if name not in results]:
            found = session.run_with_ort_values(exotic, values.to_ort(feeds, always=True))
            results.update(
                (name, values.from_ort(value)) for name, value in zip(exotic, found, strict=True)
            )
        return {name: results[name] for name in names}

    def time(
        self,
        handles: Sequence[int],
        feeds: Mapping[str, Value],
        max_runs: int,
        max_seconds: float,
    ) -> list[list[float]]:
        """Milliseconds per run, round by round; every other round goes backwards.

        A short model is run several times per sample, so that the clock's grain and the call's
        own cost do not decide. Stops after `max_runs` rounds or `max_seconds`, never before one.
        """
        started = time.perf_counter()
        sessions = [self._sessions[handle] for handle in handles]
        run = _runner(feeds)
        warm_up_s = [_seconds(run, session, 1) for session in sessions]
        if max(warm_up_s) < max_seconds / 10:
            warm_up_s = [_seconds(run, session, 1) for session in sessions]
        repeats = max(1, min(MAX_REPEATS, int(SAMPLE_SECONDS / max(*warm_up_s, 1e-7))))
        samples_ms: list[list[float]] = [[] for _ in sessions]
        order = list(range(len(sessions)))
        for _ in range(max_runs):
            for index in order:
                samples_ms[index].append(_seconds(run, sessions[index], repeats) / repeats * 1e3)
            order.reverse()
            if time.perf_counter() - started > max_seconds:
                break
        return samples_ms


def _register(options: ort.SessionOptions, extension: Extension) -> None:
    library = ctypes.CDLL(os.fspath(extension.library))
    library.ort_optim_stage.restype = ctypes.c_char_p
    library.ort_optim_stage.argtypes = (ctypes.c_char_p, ctypes.c_int64)
    error = library.ort_optim_stage(extension.blob, len(extension.blob))
    if error is not None:
        raise ValueError(error.decode(errors="replace"))
    options.register_custom_ops_library(os.fspath(extension.library))


def _runner(feeds: Mapping[str, Value]) -> Any:
    """The cheapest call that runs a session on `feeds` without making NumPy outputs."""
    if all(
        isinstance(value, np.ndarray) and value.dtype.kind not in "OSU" for value in feeds.values()
    ):
        bound = values.to_ort(feeds, always=True)
        return lambda session: session.run_with_ort_values(None, bound)
    return lambda session: session.run(None, dict(feeds))


def _seconds(run: Any, session: ort.InferenceSession, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run(session)
    return time.perf_counter() - start


def _info(arg: Any) -> TensorInfo:
    shape = tuple(arg.shape) if isinstance(arg.shape, (list, tuple)) else ()
    return TensorInfo(arg.name, arg.type, shape)


def _read_requests(source: IO[bytes], requests: queue.SimpleQueue[Any]) -> None:
    """Queue what arrives; when the client is gone, end this process even in the middle of a run."""
    while True:
        try:
            requests.put(pickle.load(source))
        except EOFError:
            os._exit(0)
        except BaseException as error:  # no memory for the request, say: nobody would answer it
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)


def main() -> None:
    """Serve requests until the client closes the pipe."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever native code prints must not land among the answers
    with contextlib.suppress(OSError):  # if memory runs out, this process goes first
        Path("/proc/self/oom_score_adj").write_text("500")
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    _send(answers, Reply(ort.__version__))
    threading.Thread(target=_read_requests, args=(sys.stdin.buffer, requests), daemon=True).start()
    sessions = Sessions()
    while True:
        verb, arguments = requests.get()
        try:
            reply = Reply(getattr(sessions, verb)(*arguments))
        except Exception as error:
            reply = Reply(error=" ".join(str(error).split()) or type(error).__name__)
        _send(answers, reply)


def _send(answers: IO[bytes], reply: Reply) -> None:
    pickle.dump(reply, answers, protocol=5)
    answers.flush()


if __name__ == "__main__":
    main()
