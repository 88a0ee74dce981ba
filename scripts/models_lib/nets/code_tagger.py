"""Python source, a class per character: transformer encoder; opset 11, dynamic batch and length.

At this opset the exporter writes out LayerNormalization (ReduceMean, Sub, Pow, Sqrt, Div) and GELU
(Div, Erf, Add, Mul), and the reshapes carry Shape, Gather and Concat.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models_lib import export, source_code, training
from models_lib.recording import Made

LENGTH = 128
MAX_LENGTH = 256
EVALUATED = 100


class SelfAttention(nn.Module):
    """Multi-head attention; `bias` (N, 1, 1, S) is added to the scores."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.value, self.dense = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def split(self, x: Tensor) -> Tensor:
        """(N, S, dim) -> (N, heads, S, head_dim)."""
        return x.view(x.size(0), x.size(1), self.heads, self.head_dim).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(self.head_dim) + bias
        mixed = torch.matmul(torch.softmax(scores, dim=-1), v)  # (N, heads, S, head_dim)
        mixed = mixed.permute(0, 2, 1, 3).contiguous()
        return self.dense(mixed.view(mixed.size(0), mixed.size(1), self.heads * self.head_dim))


class Layer(nn.Module):
    """Attention and feed-forward, each followed by residual add and LayerNorm (as in BERT)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, heads)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.up, self.down = nn.Linear(dim, 3 * dim), nn.Linear(3 * dim, dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, bias))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class CodeTagger(nn.Module):
    """Codes and mask (N, S) int64 -> (N, S, 7)."""

    def __init__(self, dim: int = 96, heads: int = 4, layers: int = 3) -> None:
        super().__init__()
        self.characters = nn.Embedding(128, dim)
        self.positions = nn.Embedding(MAX_LENGTH, dim)
        self.context = nn.Conv1d(dim, dim, 7, padding=3)
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(Layer(dim, heads) for _ in range(layers))
        self.classifier = nn.Linear(dim, len(source_code.CLASSES))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.characters(input_ids)
        x = x + F.gelu(self.context(x.transpose(1, 2))).transpose(1, 2)
        position = torch.arange(input_ids.size(1), device=input_ids.device)
        x = self.norm(x + self.positions(position).unsqueeze(0))
        bias = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -10000.0
        for layer in self.layers:
            x = layer(x, bias)
        return self.classifier(x)


def make(seed: int, threads: int) -> Made:
    """Trains on 12,000 pieces of the standard library, about three minutes."""
    training.seed_everything(seed, threads)
    codes, mask, classes = (
        torch.from_numpy(a)
        for a in source_code.windows(
            source_code.TRAINING, 12_000, LENGTH, np.random.default_rng(seed)
        )
    )
    net = CodeTagger()
    training.fit(
        net,
        len(codes),
        lambda i: F.cross_entropy(
            net(codes[i], mask[i]).flatten(0, 1), classes[i].flatten(), ignore_index=-1
        ),
        epochs=2,
        batch=24,
        peak_lr=2e-3,
    )
    axes = {0: "batch", 1: "sequence"}
    model = export.torchscript(
        net,
        (codes[:2], mask[:2]),
        opset=11,
        inputs=["input_ids", "attention_mask"],
        outputs=["logits"],
        dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": axes},
    )
    eval_codes, eval_mask, eval_classes = source_code.windows(
        source_code.HELD_OUT, EVALUATED, LENGTH, np.random.default_rng(seed + 1)
    )
    return Made(
        model=model,
        task="highlight Python source, per character: " + ", ".join(source_code.CLASSES),
        exporter="torch TorchScript, LayerNorm and GELU written out, no constant folding",
        metric="token_accuracy",
        inputs={"input_ids": eval_codes, "attention_mask": eval_mask},
        labels={"label": eval_classes.astype(np.int8)},
        input_ranges={
            "input_ids": {"low": 0, "high": 127, "meaning": f"ASCII, at most {MAX_LENGTH} long"},
            "attention_mask": {"low": 0, "high": 1, "meaning": "1 where there is text"},
        },
        data_source=source_code.SOURCE,
    )
