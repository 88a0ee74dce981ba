"""The one door to onnxruntime. Every session lives in a worker process of its own.

client.py   Engine: what the rest of the package calls; starts, watches and restarts the worker
worker.py   the process that imports onnxruntime: open, run, time
source.py   a ModelProto with external data, made ready to travel
values.py   NumPy values to ORT values and back
wire.py     the messages between the two
"""

from ort_optim.engine.client import Engine, EngineError
from ort_optim.engine.source import make_source
from ort_optim.engine.wire import ModelSource, TensorInfo, Value

__all__ = ["Engine", "EngineError", "ModelSource", "TensorInfo", "Value", "make_source"]
