"""The table of networks; the order is that of the manifest."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from models_lib.recording import Made

NAMES: tuple[str, ...] = (
    "digits_resnet",
    "shapes_mobilenet",
    "shapes_mobilenet_qdq",
    "shapes_detector",
    "textures_unet",
    "photo_superres",
    "ocr_bilstm",
    "code_tagger",
    "code_lm",
    "tones_kws",
    "digits_adaptive",
)


def maker(name: str) -> Callable[[int, int], Made]:
    """The function (seed, threads) -> Made of one network; importing it imports torch."""
    return importlib.import_module(f"models_lib.nets.{name}").make
