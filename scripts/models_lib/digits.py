"""scikit-learn's handwritten digits (1,797 images of 8x8), enlarged; single ones and strings.

The data set is the test part of UCI's "Optical Recognition of Handwritten Digits" (E. Alpaydin,
C. Kaynak), CC BY 4.0.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import zoom

SOURCE = "scikit-learn load_digits (UCI optical recognition of handwritten digits, CC BY 4.0)"


def load(seed: int, held_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(train images, train labels, held-out images, held-out labels); images (N, 8, 8) in 0..1."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images = digits.images[order].astype(np.float32) / 16
    labels = digits.target[order].astype(np.int64)
    return images[held_out:], labels[held_out:], images[:held_out], labels[:held_out]


def place(images: np.ndarray, size: int, rng: np.random.Generator, jitter: int = 0) -> np.ndarray:
    """(N, 8, 8) -> (N, 1, size, size): enlarged three times, centred up to `jitter` pixels off,
    in steps of 1/255."""
    result = np.zeros((len(images), 1, size, size), np.float32)
    for i, image in enumerate(images):
        big = enlarge(image, 3)  # (24, 24)
        top, left = (size - 24) // 2 + rng.integers(-jitter, jitter + 1, 2)
        result[i, 0, top : top + 24, left : left + 24] = big
    return result


def strings(
    images: np.ndarray,
    labels: np.ndarray,
    count: int,
    width: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Lines of 3 to 7 digits at uneven distances and contrast: (N, 1, 16, width) in 0..1 in steps
    of 1/255, and their text (N, 7), padded with -1."""
    lines = np.zeros((count, 1, 16, width), np.float32)
    text = np.full((count, 7), -1, np.int64)
    for i in range(count):
        length = int(rng.integers(3, 8))
        left = int(rng.integers(0, 5))
        for j in range(length):
            if left + 16 > width:
                break
            k = int(rng.integers(len(images)))
            window = lines[i, 0, :, left : left + 16]
            np.maximum(window, enlarge(images[k], 2) * rng.uniform(0.6, 1), out=window)
            text[i, j] = labels[k]
            left += int(rng.integers(12, 20))
    return np.round(lines * 255).astype(np.float32) / 255, text


def enlarge(image: np.ndarray, times: int) -> np.ndarray:
    """(8, 8) -> (8 * times, 8 * times), bilinear, in steps of 1/255."""
    big = zoom(image, times, order=1, grid_mode=True, mode="nearest")
    return (np.round(big * 255) / 255).astype(np.float32)
