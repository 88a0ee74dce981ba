"""The client's side of the engine: one worker process, watched and restarted."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any, Self

import onnx

from ort_optim.engine.wire import ModelSource, Reply, TensorInfo, Value
from ort_optim.errors import OrtOptimError, WorkerError


class EngineError(OrtOptimError):
    """ONNX Runtime refused a model or failed to run it; the message is ORT's, on one line."""


class StartError(OrtOptimError):
    """The worker does not come up: onnxruntime can't be imported, say. No model is to blame."""


START_SECONDS = 120.0  # what the imports of a worker may take on a busy machine


class Engine:
    """Runs models in a worker process, so that a crash or a hang of ORT takes only that.

    The process starts at the first call (or at `start`). After a crash or a time-out the call
    raises WorkerError, all handles are gone, and the next call gets a fresh process. Where no
    process comes up at all, every call raises StartError. `on_reply` is called after each answer:
    a sign of life for whoever watches over a long run.
    """

    def __init__(self, threads: int = 1, timeout_s: float = 600.0) -> None:
        self.threads = threads
        self.timeout_s = timeout_s
        self.on_reply: Callable[[], None] = lambda: None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_up = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the engine
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ort_optim-engine")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shut_down()

    def start(self) -> None:
        """Start the worker now, so that its imports overlap with the caller's work."""
        if not sys.executable:
            raise StartError("ONNX Runtime can't be started: this Python does not know its program")
        if self._process is None:
            self._is_up = False
            self._process = subprocess.Popen(
                # -P: nothing is imported from the current folder, which may be a downloaded one
                [sys.executable, "-P", "-m", "ort_optim.engine.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=_environment(),
            )

    def shut_down(self) -> None:
        """End the worker and give back what the engine holds."""
        self._kill()
        self._reader.shutdown()
        self._stderr.close()

    def open(
        self,
        model: onnx.ModelProto | bytes | Path | ModelSource,
        *,
        optimize: bool = False,
        threads: int | None = None,
    ) -> int:
        """A handle of a new session.

        `optimize` False is ORT_DISABLE_ALL, True is ORT_ENABLE_ALL. Raises EngineError where ORT
        refuses the model or its extension.
        """
        return int(self._call("open", _source(model), optimize, threads or self.threads))

    def close(self, handle: int) -> None:
        """Free a session."""
        self._call("close", handle)

    def inputs(self, handle: int) -> tuple[TensorInfo, ...]:
        """The inputs that must be fed; initializers that may be overridden are not among them."""
        found: tuple[TensorInfo, ...] = self._call("inputs", handle)
        return found

    def outputs(self, handle: int) -> tuple[TensorInfo, ...]:
        """The graph's outputs."""
        found: tuple[TensorInfo, ...] = self._call("outputs", handle)
        return found

    def run(
        self, handle: int, feeds: Mapping[str, Value], outputs: Sequence[str] | None = None
    ) -> dict[str, Value]:
        """The outputs by name. Raises EngineError where ORT fails."""
        found: dict[str, Value] = self._call("run", handle, dict(feeds), outputs)
        return found

    def time(
        self,
        handles: Sequence[int],
        feeds: Mapping[str, Value],
        max_runs: int = 20,
        max_seconds: float = 10.0,
    ) -> list[list[float]]:
        """Interleaved timings in ms after a warm-up: one list per handle, all of one length."""
        found: list[list[float]] = self._call(
            "time", list(handles), dict(feeds), max_runs, max_seconds
        )
        return found

    def _call(self, verb: str, *arguments: Any) -> Any:
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._await_start()
        try:
            pickle.dump((verb, arguments), self._process.stdin, protocol=5)
            self._process.stdin.flush()
            reply = self._receive(self.timeout_s)
        except FutureTimeout:
            self._kill()
            raise WorkerError(
                f"ONNX Runtime did not finish ({verb}) within {self.timeout_s:g} s"
            ) from None
        except (EOFError, OSError, pickle.UnpicklingError):
            raise WorkerError(f"ONNX Runtime ended its process: {self._autopsy()}") from None
        self.on_reply()
        if reply.error is not None:
            raise EngineError(reply.error)
        return reply.value

    def _await_start(self) -> None:
        """Wait for the worker's first word, which says that its imports went well."""
        if self._is_up:
            return
        try:
            self._receive(START_SECONDS)
        except FutureTimeout:
            self._kill()
            raise StartError(
                f"ONNX Runtime's process did not start within {START_SECONDS:g} s"
            ) from None
        except (EOFError, OSError, pickle.UnpicklingError):
            raise StartError(f"ONNX Runtime can't be started: {self._autopsy()}") from None
        self._is_up = True

    def _receive(self, timeout_s: float) -> Reply:
        assert self._process is not None
        assert self._process.stdout is not None
        reply: Reply = self._reader.submit(pickle.load, self._process.stdout).result(timeout_s)
        return reply

    def _autopsy(self) -> str:
        """How the worker died: its signal or exit code, and its last words."""
        assert self._process is not None
        code = self._process.wait()
        self._kill()
        self._stderr.seek(0)
        last_words = self._stderr.read().decode(errors="replace").strip().splitlines()[-1:]
        self._stderr.seek(0)
        self._stderr.truncate()
        with contextlib.suppress(ValueError):
            return ", ".join([signal.Signals(-code).name, *last_words])
        return ", ".join([f"exit code {code}", *last_words])

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _source(model: onnx.ModelProto | bytes | Path | ModelSource) -> ModelSource:
    if isinstance(model, ModelSource):
        return model
    if isinstance(model, Path):
        return ModelSource(path=model.resolve())
    if isinstance(model, bytes):
        return ModelSource(proto=model)
    try:
        return ModelSource(proto=model.SerializeToString())
    except ValueError as error:
        raise EngineError(f"the model is too large for one protobuf message: {error}") from None


def _environment() -> dict[str, str]:
    """The worker must import this very package, installed or not."""
    package_parent = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([package_parent, *([inherited] if inherited else [])]),
    }
