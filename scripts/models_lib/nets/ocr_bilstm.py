"""Lines of digits, convs then a bidirectional LSTM with CTC; opset 13, dynamic batch and width."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models_lib import digits, export, training
from models_lib.recording import Made

WIDTH = 128
HELD_OUT = 360
EVALUATED = 128


class OcrBiLstm(nn.Module):
    """(N, 1, 16, W) in 0..1 -> log probabilities (W / 4, N, 11), class 0 the blank."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            *self.block(1, 24),
            nn.MaxPool2d(2, 2),
            *self.block(24, 48),
            nn.MaxPool2d(2, 2),
            *self.block(48, 64),
            nn.MaxPool2d((4, 1), (4, 1)),
        )
        self.rnn = nn.LSTM(64, hidden, bidirectional=True)
        self.fc = nn.Linear(2 * hidden, 11)

    @staticmethod
    def block(cin: int, cout: int) -> tuple[nn.Module, ...]:
        """Conv, BN, LeakyReLU."""
        conv = nn.Conv2d(cin, cout, 3, padding=1, bias=False)
        return conv, nn.BatchNorm2d(cout), nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.cnn(x).squeeze(2).permute(2, 0, 1)  # (W / 4, N, 64)
        sequence, _ = self.rnn(features)
        return F.log_softmax(self.fc(sequence), dim=2)


def make(seed: int, threads: int) -> Made:
    """Trains on 6,000 lines, about two minutes."""
    training.seed_everything(seed, threads)
    rng = np.random.default_rng(seed)
    images, labels, eval_images, eval_labels = digits.load(seed, HELD_OUT)
    lines, text = digits.strings(images, labels, 6000, WIDTH, rng)
    x, y = torch.from_numpy(lines), torch.from_numpy(text)
    lengths = (y >= 0).sum(1)
    net = OcrBiLstm()

    def ctc(i: Tensor) -> Tensor:
        log_probs = net(x[i])
        steps = torch.full((len(i),), log_probs.size(0))
        return F.ctc_loss(log_probs, y[i] + 1, steps, lengths[i])

    training.fit(net, len(x), ctc, epochs=10, batch=40, peak_lr=4e-3)
    model = export.torchscript(
        net,
        (x[:2],),
        opset=13,
        inputs=["input"],
        outputs=["log_probs"],
        dynamic_axes={
            "input": {0: "batch", 3: "width"},
            "log_probs": {0: "steps", 1: "batch"},
        },
    )
    eval_lines, eval_text = digits.strings(eval_images, eval_labels, EVALUATED, WIDTH, rng)
    return Made(
        model=model,
        task="read a line of handwritten digits",
        exporter="torch TorchScript, batch norms kept, no constant folding",
        metric="sequence_exact_match",
        inputs={"input": eval_lines},
        labels={"text": eval_text.astype(np.int8)},
        input_ranges={"input": {"low": 0.0, "high": 1.0, "meaning": "grey, ink is 1"}},
        data_source=digits.SOURCE,
        packages=("torch", "onnx", "numpy", "scikit-learn", "scipy"),
    )
