"""The one door to onnxruntime. Every session lives in a worker process of its own.

client.py   Engine: what the rest of the package calls; starts, watches and restarts the worker
worker.py   the process that imports onnxruntime: open, run, time
values.py   NumPy values to ORT values and back
wire.py     the messages between the two
"""

from ort_optim.engine.client import Engine, EngineError
from ort_optim.engine.wire import Blob, ModelSource, TensorInfo, Value

__all__ = ["Blob", "Engine", "EngineError", "ModelSource", "TensorInfo", "Value"]
