"""Photographs at twice the size, PixelShuffle; dynamo export, opset 18, dynamic batch and size."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models_lib import export, photos, training
from models_lib.recording import Made

SIZE = 32
EVALUATED = 64


class Residual(nn.Module):
    """x + conv(prelu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.act(self.conv1(x)))


class PhotoSuperRes(nn.Module):
    """(N, 1, H, W) -> (N, 1, 2H, 2W), both 0..1: bilinear enlargement plus a learned correction."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, channels, 5, padding=2)
        self.act = nn.PReLU(channels)
        self.body = nn.Sequential(*(Residual(channels) for _ in range(4)))
        self.tail = nn.Conv2d(channels, 4, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        features = self.act(self.head(x))
        correction = self.shuffle(self.tail(features + self.body(features)))
        enlarged = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.clamp(enlarged + correction, 0.0, 1.0)


def make(seed: int, threads: int) -> Made:
    """Trains on 2,400 patches, about two minutes."""
    training.seed_everything(seed, threads)
    low, high = photos.low_and_high(photos.TRAINING, 2400, SIZE, np.random.default_rng(seed))
    x, y = torch.from_numpy(low) / 255, torch.from_numpy(high) / 255
    net = PhotoSuperRes()
    training.fit(
        net,
        len(x),
        lambda i: F.l1_loss(net(x[i]), y[i]),
        epochs=8,
        batch=24,
        peak_lr=3e-3,
        weight_decay=0.0,
    )
    batch, height, width = (torch.export.Dim(n, min=1) for n in ("batch", "height", "width"))
    model = export.dynamo(
        net,
        (x[:2],),
        opset=18,
        inputs=["input"],
        outputs=["output"],
        dynamic_shapes=({0: batch, 2: height, 3: width},),
    )
    eval_low, eval_high = photos.low_and_high(
        photos.HELD_OUT, EVALUATED, SIZE, np.random.default_rng(seed + 1)
    )
    bilinear = F.interpolate(torch.from_numpy(eval_low) / 255, scale_factor=2, mode="bilinear")
    error = (bilinear.numpy() - eval_high / 255.0) ** 2
    baseline_db = float(-10 * np.log10(error.mean((1, 2, 3))).mean())
    return Made(
        model=model,
        task="enlarge grey photographs twice",
        exporter="torch.export (dynamo=True), its optimizer on",
        metric="psnr_db",
        inputs={"input": (eval_low / np.float32(255)).astype(np.float32)},
        labels={"target": eval_high},
        input_ranges={"input": {"low": 0.0, "high": 1.0, "meaning": "grey"}},
        data_source=photos.SOURCE,
        packages=("torch", "onnx", "onnxscript", "numpy", "scikit-image"),
        extra={"baseline": {"name": "bilinear psnr_db", "value": round(baseline_db, 5)}},
    )
