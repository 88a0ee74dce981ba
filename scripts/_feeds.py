"""Random inputs for a model, made from what its ONNX Runtime session declares.

Independent of the package on purpose: the benchmarks judge the package's own input generator too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

INTEGERS = {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
FLOATS = {"float": np.float32, "double": np.float64, "float16": np.float16}


@dataclass(frozen=True)
class Scheme:
    """How to draw: floats from `floats` ("normal" or "unit"), integers from [low, high)."""

    name: str
    floats: str
    low: int
    high: int


# Tried in this order until the original model runs and gives finite outputs.
SCHEMES = (
    Scheme("normal", "normal", 0, 10),
    Scheme("unit", "unit", 0, 10),
    Scheme("small integers", "normal", 1, 3),
    Scheme("bits", "unit", 0, 2),
    Scheme("ones", "unit", 1, 2),
    Scheme("tens", "unit", 10, 11),
    Scheme("sample rate", "normal", 16000, 16001),
)


def make_feeds(
    inputs: list[Any], shapes: dict[str, list[int]], scheme: Scheme, seed: int
) -> dict[str, Any]:
    """Random values for `inputs` (`session.get_inputs()`).

    `shapes` gives the shape of an input by name; a dimension that is open without it becomes 1.
    """
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in inputs:
        declared = [d if isinstance(d, int) and d >= 0 else 1 for d in value.shape or []]
        feeds[value.name] = draw(value.type, shapes.get(value.name, declared), scheme, rng)
    return feeds


def draw(kind: str, shape: list[int], scheme: Scheme, rng: np.random.Generator) -> Any:
    """One value of the ORT type string `kind`, such as `tensor(float)` or `seq(tensor(int64))`."""
    if match := re.fullmatch(r"optional\((.*)\)", kind):
        return draw(match[1], shape, scheme, rng)
    if match := re.fullmatch(r"seq\((.*)\)", kind):
        return [draw(match[1], shape, scheme, rng) for _ in range(2)]
    if match := re.fullmatch(r"map\((\w+),.*\)", kind):
        keys = ["a", "b"] if match[1] == "string" else [0, 1]
        return dict(zip(keys, rng.random(2).tolist(), strict=True))
    element = re.fullmatch(r"tensor\((\w+)\)", kind)
    if element is None:
        raise TypeError(f"no random values for inputs of type {kind}")
    name = element[1]
    if name in FLOATS:
        sample = rng.standard_normal(shape) if scheme.floats == "normal" else rng.random(shape)
        return np.asarray(sample).astype(FLOATS[name])
    if name in INTEGERS:
        return np.asarray(rng.integers(scheme.low, scheme.high, shape)).astype(name)
    if name == "bool":
        return np.asarray(rng.integers(0, 2, shape)).astype(bool)
    if name == "string":
        return np.asarray(rng.choice(["alpha", "beta", "gamma"], shape)).astype(object)
    raise TypeError(f"no random values for inputs of type {kind}")
