"""Shapes on textured ground, U-Net with transposed convs; opset 17, everything dynamic.

Takes uint8 pictures in NHWC order and normalises in the graph, and pads the upsampled branch to the
skip connection's size at run time: the Shape, Gather, Sub and Pad arithmetic of many U-Nets.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models_lib import drawn, export, photos, training
from models_lib.recording import Made

SIZE = 48
EVALUATED = 64
KINDS = (0, 2, 5)  # disc, square, star
CLASSES = ("background", *(drawn.SHAPES[k] for k in KINDS))


class DoubleConv(nn.Sequential):
    """Twice conv, BN, ReLU."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(
            nn.Conv2d(cin, cout, 3, padding=1, bias=False),
            nn.BatchNorm2d(cout),
            nn.ReLU(),
            nn.Conv2d(cout, cout, 3, padding=1, bias=False),
            nn.BatchNorm2d(cout),
            nn.ReLU(),
        )


class Up(nn.Module):
    """Transposed conv, padded to the skip connection's size, concatenated with it, double conv."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(cin, cout, 2, stride=2)
        self.conv = DoubleConv(2 * cout, cout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        dy = skip.size(2) - x.size(2)
        dx = skip.size(3) - x.size(3)
        x = F.pad(x, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        return self.conv(torch.cat([skip, x], dim=1))


class TexturesUNet(nn.Module):
    """(N, H, W, 3) uint8 -> probabilities (N, 4, H, W) and mask (N, H, W)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.inc = DoubleConv(3, width)
        self.down1 = DoubleConv(width, 2 * width)
        self.down2 = DoubleConv(2 * width, 4 * width)
        self.pool = nn.MaxPool2d(2)
        self.up1 = Up(4 * width, 2 * width)
        self.up2 = Up(2 * width, width)
        self.outc = nn.Conv2d(width, len(CLASSES), 1)

    def logits(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        x1 = self.inc(x)
        x2 = self.down1(self.pool(x1))
        x3 = self.down2(self.pool(x2))
        return self.outc(self.up2(self.up1(x3, x2), x1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = torch.softmax(self.logits(image), dim=1)
        return probabilities, torch.argmax(probabilities, dim=1)


def scenes(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W, 3) uint8 pictures and (N, H, W) uint8 masks with the numbers of CLASSES."""
    textures = photos.textures()
    number = np.zeros(len(drawn.SHAPES) + 1, np.uint8)
    number[[1 + k for k in KINDS]] = np.arange(1, len(CLASSES))
    drawings = [
        drawn.draw(
            rng, SIZE, list(rng.choice(KINDS, int(rng.integers(1, 4)))), (0.12, 0.26), textures
        )
        for _ in range(count)
    ]
    return np.stack([d.image for d in drawings]), number[np.stack([d.mask for d in drawings])]


def make(seed: int, threads: int) -> Made:
    """Trains on 2,000 drawn scenes, about two minutes."""
    training.seed_everything(seed, threads)
    images, masks = scenes(2000, np.random.default_rng(seed))
    x, y = torch.from_numpy(images), torch.from_numpy(masks.astype(np.int64))
    net = TexturesUNet()
    training.fit(
        net,
        len(x),
        lambda i: F.cross_entropy(net.logits(x[i]), y[i]),
        epochs=8,
        batch=20,
        peak_lr=4e-3,
    )
    axes = {0: "batch", 1: "height", 2: "width"}
    model = export.torchscript(
        net,
        (x[:1],),
        opset=17,
        inputs=["image"],
        outputs=["probabilities", "mask"],
        dynamic_axes={
            "image": axes,
            "probabilities": {0: "batch", 2: "height", 3: "width"},
            "mask": axes,
        },
    )
    eval_images, eval_masks = scenes(EVALUATED, np.random.default_rng(seed + 1))
    return Made(
        model=model,
        task="segment drawn shapes: " + ", ".join(CLASSES),
        exporter="torch TorchScript, batch norms kept, no constant folding",
        metric="mean_iou",
        inputs={"image": eval_images},
        labels={"mask": eval_masks},
        input_ranges={"image": {"low": 0, "high": 255, "meaning": "RGB, height x width x 3"}},
        data_source=f"drawn by models_lib.drawn; backgrounds: {photos.SOURCE}",
        packages=("torch", "onnx", "numpy", "pillow", "scikit-image"),
    )
