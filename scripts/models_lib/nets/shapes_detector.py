"""Drawn shapes, one-stage detector with decoding and NonMaxSuppression in the graph; opset 12.

SiLU is written out (Sigmoid, Mul), two scales meet in a small feature pyramid, the 60 best anchors
(TopK, Gather) go to NonMaxSuppression: outputs as long as what was found.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models_lib import drawn, export, training
from models_lib.recording import Made

SIZE = 96
EVALUATED = 90
KINDS = (0, 2, 5, 6)  # disc, square, star, cross
STRIDES = (8, 16)
LARGE_PIXELS = 34.0  # a longer side than this belongs to the coarser scale
KEPT_BEFORE_NMS = 60
MAX_PER_CLASS, MAX_IOU, MIN_SCORE = 10, 0.5, 0.25
MAX_OBJECTS = 4


class NonMaxSuppression(torch.autograd.Function):
    """The ONNX operator, as an exporter's symbolic; only its shape matters when traced."""

    @staticmethod
    def forward(ctx: object, boxes: Tensor, scores: Tensor, *limits: Tensor) -> Tensor:
        return torch.zeros((5, 3), dtype=torch.int64)

    @staticmethod
    def symbolic(g: object, boxes: object, scores: object, *limits: object) -> object:
        return g.op("NonMaxSuppression", boxes, scores, *limits)  # type: ignore[attr-defined]


class ConvSiLU(nn.Module):
    """Conv, BN, x * sigmoid(x)."""

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(x)))


class ShapesDetector(nn.Module):
    """(1, 3, 96, 96) -> raw predictions (1, A, 4 + 1 + classes), A = 12 * 12 + 6 * 6."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvSiLU(3, 16, 2), ConvSiLU(16, 24, 2), ConvSiLU(24, 32))
        self.stage3 = nn.Sequential(ConvSiLU(32, 48, 2), ConvSiLU(48, 48))
        self.stage4 = nn.Sequential(ConvSiLU(48, 64, 2), ConvSiLU(64, 64))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.fuse = ConvSiLU(48 + 64, 48)
        self.heads = nn.ModuleList(
            nn.Sequential(ConvSiLU(c, 48), nn.Conv2d(48, 5 + len(KINDS), 1)) for c in (48, 64)
        )

    def forward(self, x: Tensor) -> Tensor:
        c3 = self.stage3(self.stem(x))
        c4 = self.stage4(c3)
        p3 = self.fuse(torch.cat([c3, self.up(c4)], dim=1))
        raw = [head(p) for head, p in zip(self.heads, (p3, c4), strict=True)]
        return torch.cat([r.flatten(2).permute(0, 2, 1) for r in raw], dim=1)


def anchors() -> tuple[Tensor, Tensor]:
    """Cell centres (A, 2) in pixels, x first, and strides (A, 1), ordered as the raw output."""
    centres, strides = [], []
    for stride in STRIDES:
        side = (torch.arange(SIZE // stride) + 0.5) * stride
        y, x = torch.meshgrid(side, side, indexing="ij")
        centres.append(torch.stack([x, y], -1).view(-1, 2))
        strides.append(torch.full((len(centres[-1]), 1), float(stride)))
    return torch.cat(centres), torch.cat(strides)


class WithPostprocessing(nn.Module):
    """The detector as it ships: boxes (K, 4) x1 y1 x2 y2 in pixels, scores (K,), classes (K,)."""

    def __init__(self, net: ShapesDetector) -> None:
        super().__init__()
        self.net = net
        centres, strides = anchors()
        self.register_buffer("centres", centres)
        self.register_buffer("strides", strides)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raw = self.net(image)[0]  # (A, 5 + classes)
        boxes = decode(raw[:, :4], self.centres, self.strides)  # (A, 4)
        scores = torch.sigmoid(raw[:, 4:5]) * torch.sigmoid(raw[:, 5:])  # (A, classes)
        best = torch.topk(scores.max(dim=1).values, KEPT_BEFORE_NMS).indices
        boxes, scores = boxes[best], scores[best]
        picked = NonMaxSuppression.apply(
            boxes.unsqueeze(0),
            scores.transpose(0, 1).unsqueeze(0),
            torch.tensor([MAX_PER_CLASS]),
            torch.tensor([MAX_IOU]),
            torch.tensor([MIN_SCORE]),
        )  # (K, 3): picture, class, box
        classes, which = picked[:, 1], picked[:, 2]
        flat = scores.view(-1)
        return boxes[which], flat[which * len(KINDS) + classes], classes


def decode(raw: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Raw (..., 4) distances left, top, right, bottom as logarithms of strides -> x1 y1 x2 y2."""
    reach = torch.exp(raw.clamp(-4.0, 4.0)) * strides
    return torch.cat([centres - reach[..., :2], centres + reach[..., 2:]], dim=-1)


def assign(boxes: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For one picture's (M, 4) boxes and (M,) classes: each anchor's class (A,), -1 for none, and
    its box (A, 4). A box is given to the cells within one stride of its centre."""
    centres, strides = (t.numpy() for t in anchors())
    cls = np.full(len(centres), -1, np.int64)
    target = np.zeros((len(centres), 4), np.float32)
    for box, kind in zip(boxes, kinds, strict=True):
        stride = STRIDES[1] if (box[2:] - box[:2]).max() > LARGE_PIXELS else STRIDES[0]
        middle = (box[:2] + box[2:]) / 2
        near = (np.abs(centres - middle) < stride).all(-1) & (strides[:, 0] == stride)
        cls[near], target[near] = KINDS.index(int(kind)), box
    return cls, target


def loss(raw: Tensor, cls: Tensor, boxes: Tensor) -> Tensor:
    """Raw (B, A, 5 + classes) against `assign`ed classes (B, A) and boxes (B, A, 4):
    objectness, class, and 1 - IoU of the assigned boxes."""
    centres, strides = anchors()
    mine = cls >= 0
    objectness = F.binary_cross_entropy_with_logits(raw[..., 4], mine.float(), reduction="sum")
    logits, truth = raw[..., 5:][mine], F.one_hot(cls[mine], len(KINDS)).float()
    classes = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
    a, b = decode(raw[..., :4], centres, strides)[mine], boxes[mine]
    inter = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    overlap = inter.prod(-1)
    union = (a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - overlap
    return (objectness + classes + 2 * (1 - overlap / union).sum()) / mine.sum().clamp(min=1)


def scenes(count: int, rng: np.random.Generator) -> list[drawn.Scene]:
    """Pictures with one to four shapes of KINDS."""
    return [
        drawn.draw(rng, SIZE, list(rng.choice(KINDS, int(rng.integers(1, 5)))), (0.08, 0.27))
        for _ in range(count)
    ]


def to_input(drawings: list[drawn.Scene]) -> np.ndarray:
    """(N, 3, SIZE, SIZE) float32 in 0..255, BGR, as pictures come from OpenCV."""
    pictures = np.stack([d.image for d in drawings])[..., ::-1]
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).astype(np.float32)


def padded_labels(drawings: list[drawn.Scene]) -> dict[str, np.ndarray]:
    """Boxes (N, 4, 4) and classes (N, 4), padded with class -1."""
    boxes = np.zeros((len(drawings), MAX_OBJECTS, 4), np.float32)
    classes = np.full((len(drawings), MAX_OBJECTS), -1, np.int8)
    for i, scene in enumerate(drawings):
        boxes[i, : len(scene.boxes)] = scene.boxes
        classes[i, : len(scene.kinds)] = [KINDS.index(int(k)) for k in scene.kinds]
    return {"boxes": boxes, "classes": classes}


def make(seed: int, threads: int) -> Made:
    """Trains on 3,000 drawn scenes, about two minutes."""
    training.seed_everything(seed, threads)
    drawings = scenes(3000, np.random.default_rng(seed))
    x = torch.from_numpy(to_input(drawings))
    assigned = [assign(d.boxes, d.kinds) for d in drawings]
    cls = torch.from_numpy(np.stack([c for c, _ in assigned]))
    boxes = torch.from_numpy(np.stack([b for _, b in assigned]))
    net = ShapesDetector()
    training.fit(
        net,
        len(x),
        lambda i: loss(net(x[i]), cls[i], boxes[i]),
        epochs=14,
        batch=30,
        peak_lr=4e-3,
    )
    model = export.torchscript(
        WithPostprocessing(net).eval(),
        (x[:1],),
        opset=12,
        inputs=["images"],
        outputs=["boxes", "scores", "classes"],
        dynamic_axes={"boxes": {0: "found"}, "scores": {0: "found"}, "classes": {0: "found"}},
    )
    eval_drawings = scenes(EVALUATED, np.random.default_rng(seed + 1))
    return Made(
        model=model,
        task="detect drawn shapes: " + ", ".join(drawn.SHAPES[k] for k in KINDS),
        exporter="torch TorchScript, SiLU written out, post-processing in the graph",
        metric="mean_average_precision",
        inputs={"images": to_input(eval_drawings)},
        labels=padded_labels(eval_drawings),
        input_ranges={"images": {"low": 0.0, "high": 255.0, "meaning": "BGR, not normalised"}},
        data_source="drawn by models_lib.drawn",
        packages=("torch", "onnx", "numpy", "pillow"),
    )
