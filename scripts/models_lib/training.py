"""The one training loop: AdamW, one-cycle learning rate, deterministic by seed."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn


def seed_everything(seed: int, threads: int = 1) -> None:
    """Same seed, same machine, same versions: same weights."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)


def fit(
    net: nn.Module,
    samples: int,
    batch_loss: Callable[[Tensor], Tensor],
    *,
    epochs: int,
    batch: int,
    peak_lr: float,
    weight_decay: float = 1e-2,
) -> None:
    """Trains `net` in place and leaves it in evaluation mode.

    `batch_loss` gets the indices (B,) of the samples of one batch and returns their mean loss.
    """
    steps_per_epoch = samples // batch
    optimizer = torch.optim.AdamW(net.parameters(), lr=peak_lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=peak_lr, total_steps=epochs * steps_per_epoch
    )
    net.train()
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(samples)
        for step in range(steps_per_epoch):
            optimizer.zero_grad()
            loss = batch_loss(order[step * batch : (step + 1) * batch])
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        mean = total / steps_per_epoch
        print(f"  epoch {epoch + 1}/{epochs}  loss {mean:.4f}", file=sys.stderr, flush=True)
    net.eval()
