"""Patches and textures from the pictures that come with scikit-image (CC0 or public domain)."""

from __future__ import annotations

import numpy as np

SOURCE = "pictures that come with scikit-image (CC0 or public domain)"
TRAINING = ("astronaut", "camera", "coffee", "rocket", "brick", "grass", "immunohistochemistry")
HELD_OUT = ("chelsea", "gravel", "moon", "motorcycle")


def grey(name: str) -> np.ndarray:
    """One picture, (H, W) float32 in 0..1; a test pattern is not taken for a photograph."""
    from skimage import color, data, io

    if name == "motorcycle":  # its loader wants the disparity map too, which is not in the wheel
        from pathlib import Path

        import skimage

        picture = io.imread(Path(skimage.__file__).parent / "data" / "motorcycle_left.png")
    else:
        picture = getattr(data, name)()
    picture = picture if picture.ndim == 2 else color.rgb2gray(picture)
    return (picture / 255 if picture.dtype == np.uint8 else picture).astype(np.float32)


def textures() -> np.ndarray:
    """Brick, grass and gravel, (3, 512, 512) in 0..1, contrast evened out."""
    pictures = [grey(name) for name in ("brick", "grass", "gravel")]
    return np.stack([((p - p.mean()) / (4 * p.std()) + 0.5).clip(0, 1) for p in pictures])


def low_and_high(
    names: tuple[str, ...], count: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`count` patches at two scales: (N, 1, size, size) made by averaging 2x2 pixels, and the
    originals (N, 1, 2 size, 2 size); both uint8."""
    pictures = [grey(name) for name in names]
    high = np.empty((count, 1, 2 * size, 2 * size), np.float32)
    for i in range(count):
        picture = pictures[i % len(pictures)]
        top, left = (int(rng.integers(0, side - 2 * size)) for side in picture.shape)
        patch = picture[top : top + 2 * size, left : left + 2 * size]
        high[i, 0] = np.rot90(patch, int(rng.integers(4)))
    low = high.reshape(count, 1, size, 2, size, 2).mean((3, 5))  # (N, 1, size, size)
    return np.round(low * 255).astype(np.uint8), np.round(high * 255).astype(np.uint8)
