"""Python source, the next character: a causal transformer; dynamo export, opset 20.

At this opset LayerNormalization and Gelu are operators of their own; the attention is torch's
scaled_dot_product_attention, decomposed by the exporter; batch and length are dynamic.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models_lib import export, source_code, training
from models_lib.recording import Made

LENGTH = 96
MAX_LENGTH = 256
EVALUATED = 64


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)) (as in GPT-2)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, dim = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, steps, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (N, heads, S, dim / heads)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, steps, dim))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class CodeLm(nn.Module):
    """Codes (N, S) int64 -> logits of the next one (N, S, 128); embedding and output are tied."""

    def __init__(self, dim: int = 96, heads: int = 4, layers: int = 3) -> None:
        super().__init__()
        self.characters = nn.Embedding(128, dim)
        self.positions = nn.Embedding(MAX_LENGTH, dim)
        nn.init.normal_(self.characters.weight, std=0.1)
        nn.init.normal_(self.positions.weight, std=0.1)
        self.layers = nn.ModuleList(Layer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, input_ids: Tensor) -> Tensor:
        position = torch.arange(input_ids.shape[1])
        x = self.characters(input_ids) + self.positions(position)
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.norm(x), self.characters.weight)


def pieces(names: tuple[str, ...], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, LENGTH) and the next ones (N, LENGTH), -1 where a piece has ended."""
    codes, mask, _ = source_code.windows(names, count, LENGTH + 1, np.random.default_rng(seed))
    following = np.where(mask[:, 1:] == 1, codes[:, 1:], -1)
    return codes[:, :-1], following


def make(seed: int, threads: int) -> Made:
    """Trains on 40,000 pieces of the standard library, about five minutes."""
    training.seed_everything(seed, threads)
    codes, following = (torch.from_numpy(a) for a in pieces(source_code.TRAINING, 40_000, seed))
    net = CodeLm()
    training.fit(
        net,
        len(codes),
        lambda i: F.cross_entropy(
            net(codes[i]).flatten(0, 1), following[i].flatten(), ignore_index=-1
        ),
        epochs=1,
        batch=24,
        peak_lr=4e-3,
    )
    batch = torch.export.Dim("batch", min=1)
    sequence = torch.export.Dim("sequence", min=2, max=MAX_LENGTH)
    model = export.dynamo(
        net,
        (codes[:2],),
        opset=20,
        inputs=["input_ids"],
        outputs=["logits"],
        dynamic_shapes=({0: batch, 1: sequence},),
    )
    eval_codes, eval_following = pieces(source_code.HELD_OUT, EVALUATED, seed + 1)
    return Made(
        model=model,
        task="predict the next character of Python source",
        exporter="torch.export (dynamo=True), its optimizer on",
        metric="token_accuracy",
        inputs={"input_ids": eval_codes},
        labels={"label": eval_following.astype(np.int8)},
        input_ranges={
            "input_ids": {"low": 0, "high": 127, "meaning": f"ASCII, at most {MAX_LENGTH} long"}
        },
        data_source=source_code.SOURCE,
        packages=("torch", "onnx", "onnxscript", "numpy"),
    )
