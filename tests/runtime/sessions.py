"""Sessions in this process with hand-made regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from ort_optim.compiler.plan import RegionPlan
from ort_optim.runtime import library
from ort_optim.runtime.blob import encode
from tests.runtime.regions import Code, model_of, plan_of


@dataclass(frozen=True)
class Opened:
    """A session with its registration's number."""

    session: Any
    registration: int

    def run(self, x: np.ndarray, name: str | None = None) -> np.ndarray:
        found: np.ndarray = self.session.run(name and [name], {"x": x})[0]
        return found

    def counters(self, region: str = "R_test") -> library.Counters:
        found = library.counters(self.registration, region)
        assert found is not None
        return found


def options(threads: int = 1) -> Any:
    made = ort.SessionOptions()
    made.intra_op_num_threads = threads
    made.inter_op_num_threads = 1
    made.log_severity_level = 4
    return made


def open_session(
    model: onnx.ModelProto,
    plans: Sequence[RegionPlan],
    threads: int = 1,
    *,
    time_steps: bool = False,
) -> Opened:
    """A session that runs the model's regions in the native library."""
    registration = library.stage(encode(plans, threads=threads, time_steps=time_steps))
    registered = options(threads)
    registered.register_custom_ops_library(str(library.library_path()))
    return Opened(
        ort.InferenceSession(
            model.SerializeToString(), registered, providers=["CPUExecutionProvider"]
        ),
        registration,
    )


def open_test_region(code: Code, w: np.ndarray, threads: int = 1) -> Opened:
    """The session of regions.py's model with its plan."""
    return open_session(model_of(w), [plan_of(code, len(w))], threads)


def weights(channels: int = 8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((channels, 1, 1), dtype=np.float32)


def image(*dims: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(dims, dtype=np.float32)
