"""`shapes_mobilenet` quantized to int8 by ONNX Runtime, QDQ, per channel; opset 13.

Made from the trained float model in `models/`, as users do it: batch norms fused by the quantizer's
own pre-processing, calibrated on drawn pictures that no evaluation set holds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import version_converter
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from models_lib import drawn
from models_lib.nets import shapes_mobilenet
from models_lib.recording import Made, read_npz

MODELS = Path(__file__).resolve().parents[3] / "models"
CALIBRATED = 200


class DrawnPictures(quantization.CalibrationDataReader):
    """Feeds calibration pictures one by one."""

    def __init__(self, pictures: np.ndarray) -> None:
        self.feeds: Iterator[dict[str, np.ndarray]] = iter([{"input": p[None]} for p in pictures])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def make(seed: int, threads: int) -> Made:
    """Calibrates and quantizes, a few seconds; needs `models/shapes_mobilenet.onnx`."""
    pictures, _ = shapes_mobilenet.scenes(CALIBRATED, np.random.default_rng(seed + 2))
    # Per-channel DequantizeLinear exists from opset 13 on.
    converted = version_converter.convert_version(onnx.load(MODELS / "shapes_mobilenet.onnx"), 13)
    with tempfile.TemporaryDirectory() as folder:
        fused, quantized = f"{folder}/fused.onnx", f"{folder}/quantized.onnx"
        quant_pre_process(converted, fused)
        quantization.quantize_static(
            fused,
            quantized,
            DrawnPictures(pictures),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        model = onnx.load(quantized)
    return Made(
        model=model,
        task="classify drawn shapes: " + ", ".join(drawn.SHAPES),
        exporter="onnxruntime quantize_static, QDQ, per channel",
        metric="top1",
        inputs=read_npz(MODELS / "shapes_mobilenet.eval.npz"),
        labels=read_npz(MODELS / "shapes_mobilenet.labels.npz"),
        input_ranges={"input": {"low": 0.0, "high": 1.0, "meaning": "RGB"}},
        data_source="drawn by models_lib.drawn",
        packages=("onnx", "numpy"),
        data_of="shapes_mobilenet",
        extra={"made_from": "shapes_mobilenet.onnx"},
    )
