"""ort_optim: an ONNX model optimizer for ONNX Runtime.

    import ort_optim
    report = ort_optim.optimize("in.onnx", "out.onnx")
    session = ort_optim.InferenceSession("out.onnx")

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ort_optim._version import __version__

if TYPE_CHECKING:
    from ort_optim.config import Config
    from ort_optim.errors import InputError, OrtOptimError, VerificationError
    from ort_optim.pipeline import optimize
    from ort_optim.report.model import Report
    from ort_optim.runtime.session import InferenceSession, session_options, stats

_HOMES = {
    "Config": "ort_optim.config",
    "InferenceSession": "ort_optim.runtime.session",
    "InputError": "ort_optim.errors",
    "OrtOptimError": "ort_optim.errors",
    "Report": "ort_optim.report.model",
    "VerificationError": "ort_optim.errors",
    "optimize": "ort_optim.pipeline",
    "session_options": "ort_optim.runtime.session",
    "stats": "ort_optim.runtime.session",
}

__all__ = [
    "Config",
    "InferenceSession",
    "InputError",
    "OrtOptimError",
    "Report",
    "VerificationError",
    "__version__",
    "optimize",
    "session_options",
    "stats",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ort_optim' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
