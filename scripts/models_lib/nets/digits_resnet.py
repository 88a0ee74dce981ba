"""Handwritten digits, ResNet with basic blocks; TorchScript export, opset 13, fixed batch."""

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


class Block(nn.Module):
    """relu(x + BN(conv(relu(BN(conv(x)))))), with a 1x1 conv on the shortcut where sizes change."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.downsample: nn.Module | None = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(shortcut + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class DigitsResNet(nn.Module):
    """(1, 1, 32, 32) -> (1, 10)."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        blocks: list[nn.Module] = []
        cin = widths[0]
        for stage, cout in enumerate(widths):
            blocks += [Block(cin, cout, 1 if stage == 0 else 2), Block(cout, cout, 1)]
            cin = cout
        self.layers = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(0.1)
        self.fc = nn.Linear(cin, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.adaptive_avg_pool2d(self.layers(x), 1)
        return self.fc(self.dropout(torch.flatten(x, 1)))


def make(seed: int, threads: int) -> Made:
    """Trains on three shifted copies of 1,437 digits, about a minute."""
    training.seed_everything(seed, threads)
    rng = np.random.default_rng(seed)
    images, labels, eval_images, eval_labels = digits.load(seed, HELD_OUT)
    x = torch.from_numpy(np.concatenate([digits.place(images, SIZE, rng, 4) for _ in range(3)]))
    y = torch.from_numpy(np.tile(labels, 3))
    net = DigitsResNet()
    training.fit(
        net,
        len(x),
        lambda i: F.cross_entropy(net(x[i]), y[i], label_smoothing=0.05),
        epochs=5,
        batch=64,
        peak_lr=4e-3,
    )
    model = export.torchscript(net, (x[:1],), opset=13, inputs=["input"], outputs=["logits"])
    return Made(
        model=model,
        task="classify handwritten digits",
        exporter="torch TorchScript, batch norms kept, no constant folding",
        metric="top1",
        inputs={"input": digits.place(eval_images[:EVALUATED], SIZE, rng)},
        labels={"label": eval_labels[:EVALUATED].astype(np.uint8)},
        input_ranges={"input": {"low": 0.0, "high": 1.0, "meaning": "grey, ink is 1"}},
        data_source=digits.SOURCE,
        packages=("torch", "onnx", "numpy", "scikit-learn", "scipy"),
    )
