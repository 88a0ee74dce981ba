"""Runs regions inside ONNX Runtime: the native library and the sessions that use it."""
