"""Drawn scenes: coloured shapes on shaded or textured backgrounds, with boxes and masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("disc", "ring", "square", "frame", "triangle", "star", "cross", "bar", "arrow", "moon")
STEP = 5  # between neighbouring pixel values
OVERSAMPLE = 4  # drawn this many times larger, then averaged: smooth edges


@dataclass(frozen=True)
class Scene:
    """`image` (H, W, 3) uint8; `mask` (H, W) uint8: 0 background, 1 + kind; `boxes` (M, 4) x1 y1 x2
    y2 in pixels; `kinds` (M,) indices into SHAPES."""

    image: np.ndarray
    mask: np.ndarray
    boxes: np.ndarray
    kinds: np.ndarray


def draw(
    rng: np.random.Generator,
    size: int,
    kinds: list[int],
    radius: tuple[float, float],
    backgrounds: np.ndarray | None = None,
) -> Scene:
    """One scene of `size` x `size` with the given shapes, none hiding another.

    `radius` is the range of half extents relative to the size; `backgrounds` (K, H, W) in 0..1 are
    textures to cut the background from, else it is a colour gradient.
    """
    image = _background(rng, size, backgrounds)
    mask = np.zeros((size, size), np.uint8)
    boxes: list[tuple[float, float, float, float]] = []
    placed: list[int] = []
    for kind in kinds:
        spot = _free_spot(rng, size, radius, boxes)
        if spot is None:
            continue
        cx, cy, r = spot
        cover = _cover(kind, size, cx, cy, r, rng.uniform(0, 2 * np.pi))  # (H, W) in 0..1
        image += cover[..., None] * (_contrasting(rng, image[int(cy), int(cx)]) - image)
        mask[cover > 0.5] = 1 + kind
        ys, xs = np.nonzero(cover > 0.5)
        boxes.append((xs.min(), ys.min(), xs.max() + 1.0, ys.max() + 1.0))
        placed.append(kind)
    return Scene(
        # Coarse steps, no noise: pictures that compress, as the evaluation sets are committed.
        (np.round(image * 255 / STEP) * STEP).clip(0, 255).astype(np.uint8),
        mask,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(placed, np.int64),
    )


def _free_spot(
    rng: np.random.Generator,
    size: int,
    radius: tuple[float, float],
    boxes: list[tuple[float, float, float, float]],
) -> tuple[float, float, float] | None:
    """Centre and radius of a disc inside the picture that touches no box; None if none turns up."""
    for _ in range(20):
        r = rng.uniform(*radius) * size
        cx, cy = rng.uniform(r + 1, size - r - 1, 2)
        if all(cx + r < b[0] or cx - r > b[2] or cy + r < b[1] or cy - r > b[3] for b in boxes):
            return float(cx), float(cy), float(r)
    return None


def _background(rng: np.random.Generator, size: int, textures: np.ndarray | None) -> np.ndarray:
    first, second = rng.uniform(0.1, 0.9, (2, 3))
    if textures is None:
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[:size, :size] / size - 0.5
        blend = (x * np.cos(angle) + y * np.sin(angle)) + 0.5
    else:
        texture = textures[rng.integers(len(textures))]
        top, left = (rng.integers(0, side - size) for side in texture.shape)
        blend = texture[top : top + size, left : left + size]
    return first + blend[..., None] * 0.6 * (second - first)


def _contrasting(rng: np.random.Generator, behind: np.ndarray) -> np.ndarray:
    while True:
        colour = rng.uniform(0, 1, 3)
        if np.abs(colour - behind).sum() > 0.7:
            return colour


def _cover(kind: int, size: int, cx: float, cy: float, r: float, angle: float) -> np.ndarray:
    """How much of each pixel the shape covers."""
    canvas = Image.new("L", (size * OVERSAMPLE, size * OVERSAMPLE))
    pen = ImageDraw.Draw(canvas)

    def disc(scale: float, fill: int, dx: float = 0.0) -> None:
        x = cx + dx * r * np.cos(angle)
        y = cy + dx * r * np.sin(angle)
        box = [(x - r * scale), (y - r * scale), (x + r * scale), (y + r * scale)]
        pen.ellipse([v * OVERSAMPLE for v in box], fill=fill)

    def polygon(points: list[tuple[float, float]], fill: int = 255) -> None:
        c, s = np.cos(angle), np.sin(angle)
        turned = [(cx + r * (x * c - y * s), cy + r * (x * s + y * c)) for x, y in points]
        pen.polygon([(x * OVERSAMPLE, y * OVERSAMPLE) for x, y in turned], fill=fill)

    def box(w: float, h: float, fill: int = 255) -> None:
        polygon([(-w, -h), (w, -h), (w, h), (-w, h)], fill)

    name = SHAPES[kind]
    if name == "disc":
        disc(1, 255)
    elif name == "ring":
        disc(1, 255)
        disc(0.55, 0)
    elif name == "moon":
        disc(1, 255)
        disc(0.85, 0, dx=0.55)
    elif name == "square":
        box(0.7, 0.7)
    elif name == "frame":
        box(0.7, 0.7)
        box(0.4, 0.4, 0)
    elif name == "bar":
        box(0.95, 0.25)
    elif name == "cross":
        box(0.95, 0.28)
        box(0.28, 0.95)
    elif name == "triangle":
        polygon(_star(3, 0.5))
    elif name == "star":
        polygon(_star(5, 0.4))
    else:
        polygon([(1, 0), (0.1, -0.75), (0.1, -0.3), (-0.9, -0.3)])
        polygon([(1, 0), (0.1, 0.75), (0.1, 0.3), (-0.9, 0.3)])
        polygon([(1, 0), (-0.9, -0.3), (-0.9, 0.3)])
    small = canvas.resize((size, size), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def _star(points: int, inner: float) -> list[tuple[float, float]]:
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return [
        (float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)
    ]
