"""Handwritten digits with as many refinement steps as the picture needs: Loop and If; opset 14.

Exported from a scripted module, so the `while` over the network's own confidence becomes a Loop
whose body holds convs and an instance norm, and the size check an If.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models_lib import digits, export, training
from models_lib.recording import Made

SIZE = 32
HELD_OUT = 360
EVALUATED = 180
MAX_STEPS = 6


class DigitsAdaptive(nn.Module):
    """(1, 1, H, W) in 0..1 -> logits (1, 10), steps taken (scalar int64)."""

    def __init__(self, channels: int = 24, enough: float = 0.9) -> None:
        super().__init__()
        self.size, self.max_steps, self.enough = SIZE, MAX_STEPS, enough
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 3, 2, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 2, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        # The same weights see every step: statistics of the picture itself, no running ones.
        self.refine = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.InstanceNorm2d(channels, affine=True),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1),
        )
        self.head = nn.Linear(channels, 10)

    def classify(self, x: Tensor) -> Tensor:
        """(N, C, 8, 8) -> (N, 10)."""
        return self.head(x.mean([2, 3]))

    def step(self, x: Tensor) -> Tensor:
        """One refinement; the same weights every time."""
        return F.relu(x + self.refine(x))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        size = self.size
        if image.size(2) != size or image.size(3) != size:
            image = F.interpolate(image, size=[size, size], mode="bilinear", align_corners=False)
        x = self.stem(image)
        logits = self.classify(x)
        steps = torch.zeros([], dtype=torch.int64)
        while bool(steps < self.max_steps) and bool(
            torch.softmax(logits, dim=1).max() < self.enough
        ):
            x = self.step(x)
            logits = self.classify(x)
            steps = steps + 1
        return logits, steps


def make(seed: int, threads: int) -> Made:
    """Trains the answer after every step, for about a minute."""
    training.seed_everything(seed, threads)
    rng = np.random.default_rng(seed)
    images, labels, eval_images, eval_labels = digits.load(seed, HELD_OUT)
    x = torch.from_numpy(np.concatenate([digits.place(images, SIZE, rng, 3) for _ in range(3)]))
    y = torch.from_numpy(np.tile(labels, 3))
    net = DigitsAdaptive()

    def every_step(i: Tensor) -> Tensor:
        features = net.stem(x[i])
        total = F.cross_entropy(net.classify(features), y[i])
        for _ in range(MAX_STEPS):
            features = net.step(features)
            total = total + F.cross_entropy(net.classify(features), y[i])
        return total / (MAX_STEPS + 1)

    training.fit(net, len(x), every_step, epochs=12, batch=64, peak_lr=4e-3)
    model = export.torchscript(
        torch.jit.script(net),
        (x[:1],),
        opset=14,
        inputs=["image"],
        outputs=["logits", "steps"],
        dynamic_axes={"image": {2: "height", 3: "width"}},
    )
    return Made(
        model=model,
        task="classify handwritten digits, stopping when sure",
        exporter="torch TorchScript from a scripted module: Loop and If",
        metric="top1",
        inputs={"image": digits.place(eval_images[:EVALUATED], SIZE, rng)},
        labels={"label": eval_labels[:EVALUATED].astype(np.uint8)},
        input_ranges={"image": {"low": 0.0, "high": 1.0, "meaning": "grey, ink is 1"}},
        data_source=digits.SOURCE,
        packages=("torch", "onnx", "numpy", "scikit-learn", "scipy"),
    )
