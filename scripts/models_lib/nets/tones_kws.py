"""Synthesised sounds, 1-D depthwise-separable convs; opset 9, IR 3, weights listed as inputs."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models_lib import export, sounds, training
from models_lib.recording import Made

EVALUATED = 96


class Separable(nn.Module):
    """Depthwise conv, BN, ReLU, pointwise conv, BN, ReLU."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(cin, cin, 9, stride, 4, groups=cin, bias=False)
        self.bn1 = nn.BatchNorm1d(cin)
        self.pointwise = nn.Conv1d(cin, cout, 1, bias=False)
        self.bn2 = nn.BatchNorm1d(cout)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.pointwise(F.relu(self.bn1(self.depthwise(x))))))


class TonesKws(nn.Module):
    """(1, 1, 2048) waveform in -1..1 -> (1, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 32, 64, 8, 28)
        self.bn = nn.BatchNorm1d(32)
        self.blocks = nn.Sequential(
            Separable(32, 48, 2), Separable(48, 64, 2), Separable(64, 64, 2), Separable(64, 96, 2)
        )
        self.pool = nn.AvgPool1d(16)
        self.fc = nn.Linear(96, len(sounds.KINDS))

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.abs(self.bn(self.conv(x))))
        return self.fc(self.pool(x).view(x.size(0), -1))


def make(seed: int, threads: int) -> Made:
    """Trains on 6,000 sounds, about a minute."""
    training.seed_everything(seed, threads)
    waves, kinds = sounds.data_set(6000, np.random.default_rng(seed))
    x, y = torch.from_numpy(waves), torch.from_numpy(kinds)
    net = TonesKws()
    training.fit(
        net, len(x), lambda i: F.cross_entropy(net(x[i]), y[i]), epochs=14, batch=50, peak_lr=5e-3
    )
    model = export.torchscript(
        net,
        (x[:1],),
        opset=9,
        inputs=["waveform"],
        outputs=["logits"],
        initializers_as_inputs=True,
    )
    model.ir_version = 3  # what exporters wrote when opset 8 and 9 were new
    eval_waves, eval_kinds = sounds.data_set(EVALUATED, np.random.default_rng(seed + 1))
    return Made(
        model=model,
        task="classify half a second of sound at 4 kHz: " + ", ".join(sounds.KINDS),
        exporter="torch TorchScript, weights listed as graph inputs (IR 3)",
        metric="top1",
        inputs={"waveform": eval_waves},
        labels={"label": eval_kinds.astype(np.uint8)},
        input_ranges={"waveform": {"low": -1.0, "high": 1.0, "meaning": "waveform"}},
        data_source="synthesised by models_lib.sounds",
    )
