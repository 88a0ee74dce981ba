"""ort_optim: an ONNX model optimizer for ONNX Runtime."""

from ort_optim._version import __version__

__all__ = ["__version__"]
