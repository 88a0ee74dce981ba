"""The one door to onnxruntime. Every session lives in a worker process of its own.

client.py   Engine: what the rest of the package calls; starts, watches and restarts the worker
worker.py   the process that imports onnxruntime: open, run, time
source.py   a ModelProto, made ready to travel
spill.py    heavy weights in a file of the run, which both sides map
values.py   NumPy values to ORT values and back
wire.py     the messages between the two

The names are loaded when they are first used: the worker imports this package on its way to its
own module, and must start without what only the client needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ort_optim.engine.client import Engine, EngineError, StartError
    from ort_optim.engine.source import make_source
    from ort_optim.engine.spill import Spill, unload
    from ort_optim.engine.wire import Extension, ModelSource, TensorInfo, Value

_HOMES = {
    "Engine": "client",
    "EngineError": "client",
    "Extension": "wire",
    "ModelSource": "wire",
    "Spill": "spill",
    "StartError": "client",
    "TensorInfo": "wire",
    "Value": "wire",
    "make_source": "source",
    "unload": "spill",
}

__all__ = [
    "Engine",
    "EngineError",
    "Extension",
    "ModelSource",
    "Spill",
    "StartError",
    "TensorInfo",
    "Value",
    "make_source",
    "unload",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ort_optim.engine' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ort_optim.engine.{_HOMES[name]}"), name)
