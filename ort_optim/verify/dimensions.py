"""Sizes for the dimensions that a model leaves open.

    Schedule      candidate shapes for all inputs, most likely first; the caller takes the next
                  one when the reference refuses
    check_pins    the user's --shape against what the model declares

A dimension is guessed at from its name, its place and the rank and type of its input; equal
symbols get equal sizes in all inputs, and a "total" length is the sum of past and present.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ort_optim.engine import TensorInfo
from ort_optim.errors import InputError

Shapes = dict[str, tuple[int, ...]]
Category = Literal[
    "batch",
    "channel",
    "spatial",
    "volume",
    "sequence",
    "past",
    "total",
    "samples",
    "tiny",
    "other",
    "rank",
]
Key = str | tuple[str, int]  # a symbol, or (input, axis) where there is none

CANDIDATES: Mapping[Category, tuple[int, ...]] = {
    "batch": (1, 2, 3, 4, 6),
    "channel": (3, 1, 4),
    "spatial": (224, 256, 320, 257, 64, 32, 512, 48, 128),
    "volume": (32, 16, 64),
    "sequence": (16, 8, 32, 128, 4, 1, 512),
    "past": (8, 4, 16, 1),
    "total": (16, 24, 8, 1),
    "samples": (16000, 512, 576, 4096, 1024, 43844, 16),
    "tiny": (2, 3, 1),
    "other": (8, 4, 16, 3, 2, 1, 64),
    "rank": (0, 1, 2, 3, 4, 5),
}
RANK_SHAPES: tuple[tuple[int, ...], ...] = ((2, 3), (), (4,), (2, 3, 4), (1, 3, 8, 8), (1, 1))
"""Tried for inputs that do not even declare their rank."""

MOST_TRIES = 48
MOST_ELEMENTS = 1 << 27

_NAMELESS = re.compile(r"|none|\?|-1")  # one such "symbol" may stand for many different sizes
_PATTERNS: tuple[tuple[Category, re.Pattern[str]], ...] = (
    ("total", re.compile(r"total|\+")),
    ("past", re.compile(r"past|cache|history|mem_?len")),
    ("spatial", re.compile(r"height|width|^(h|w|h\d|w\d|rows|cols|ih|iw)$|image_size")),
    ("samples", re.compile(r"audio|sample|wave")),
    ("sequence", re.compile(r"seq|time|len|frame|token|step|^(t|l|s)$")),
    ("batch", re.compile(r"batch|^(n|b|bs|num_?images?)$")),
    ("channel", re.compile(r"channel|^c$")),
)


@dataclass(frozen=True)
class _Free:
    """One open size: what it is taken for, and the sizes to try."""

    key: Key
    category: Category
    sizes: tuple[int, ...]


class Schedule:
    """Candidate shapes for the inputs `infos`.

    `pins` fixes whole inputs (their symbols then hold for the others too); `demanded` gives
    dimensions that weights fix, axis -> size, by input name; `rankless` names the inputs that
    declare no shape at all; `spatial_hints` are heights and widths that the model mentions.
    """

    def __init__(
        self,
        infos: Sequence[TensorInfo],
        *,
        pins: Mapping[str, tuple[int, ...]] | None = None,
        demanded: Mapping[str, Mapping[int, int]] | None = None,
        rankless: frozenset[str] = frozenset(),
        spatial_hints: Sequence[int] = (),
    ) -> None:
        self._infos = [info for info in infos if "tensor(" in info.type]
        self._pins = dict(pins or {})
        self._rankless = rankless - self._pins.keys()
        self._candidates = {
            **CANDIDATES,
            "spatial": tuple(dict.fromkeys((*spatial_hints, *CANDIDATES["spatial"]))),
        }
        self._known: dict[Key, int] = {}
        for info in self._infos:
            sizes = dict(enumerate(self._pins.get(info.name, ())))
            sizes = sizes or dict((demanded or {}).get(info.name, {}))
            for axis, size in sizes.items():
                if axis < len(info.shape) and not isinstance(info.shape[axis], int):
                    self._known.setdefault(_key(info, axis), size)
        self._free = self._find_free()
        self._categories = sorted({f.category for f in self._free if f.category != "total"})

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return not self._free and not self._rankless

    def __iter__(self) -> Iterator[Shapes]:
        """Shapes to try, at most MOST_TRIES, each once."""
        return itertools.islice(self._distinct(self._choices()), MOST_TRIES)

    def variations(self, shapes: Shapes, number: int) -> Iterator[Shapes]:
        """Shapes like `shapes`, which ran, for input set `number`: the boldest change first.

        All open sizes move on in their lists, height and width apart from one another (what is
        transposed by mistake shows only then); then both alike; then only the batch; then nothing.
        """
        chosen = {f.key: self._size_in(shapes, f.key) for f in self._free}

        def moved(categories: Collection[Category], apart: int = 0) -> Shapes:
            sizes = dict(chosen)
            spread = 0
            for f in self._free:
                if f.category in categories and chosen[f.key] in f.sizes:
                    at = f.sizes.index(chosen[f.key]) + number
                    if f.category in ("spatial", "volume"):
                        at += spread
                        spread += apart
                    # large batches only where the reference insists on them
                    among = 2 if f.category == "batch" else len(f.sizes)
                    sizes[f.key] = f.sizes[at % among]
            return self._assemble(sizes, shapes)

        batch: tuple[Category, ...] = ("batch",)
        every = CANDIDATES.keys()
        return self._distinct(iter((moved(every, 1), moved(every), moved(batch), shapes)))

    def _find_free(self) -> list[_Free]:
        free: dict[Key, _Free] = {}
        for info in self._infos:
            for axis, dim in enumerate(info.shape):
                if info.name in self._pins or (isinstance(dim, int) and dim >= 0):
                    continue
                key = _key(info, axis)
                if key not in self._known and key not in free:
                    category = _category(info, axis)
                    free[key] = _Free(key, category, self._candidates[category])
        return list(free.values())

    def _choices(self) -> Iterator[Shapes]:
        """Every combination of one index per category, near the head of the lists first."""
        categories: list[Category] = list(self._categories)
        if self._rankless:
            categories.append("rank")
        lists = [range(len(self._candidates[c])) for c in categories]
        for indices in sorted(itertools.product(*lists), key=lambda i: (sum(i), max(i, default=0))):
            index: dict[Category, int] = dict(zip(categories, indices, strict=True))
            sizes = {f.key: f.sizes[index.get(f.category, 0)] for f in self._free}
            ranked = dict.fromkeys(self._rankless, RANK_SHAPES[index.get("rank", 0)])
            yield self._assemble(sizes, ranked)

    def _assemble(self, sizes: Mapping[Key, int], ranked: Shapes) -> Shapes:
        """Shapes of all inputs from the sizes of the open dimensions."""
        all_sizes = {**sizes, **self._known}
        for f in self._free:
            if f.category == "total":
                all_sizes[f.key] = self._total(f, all_sizes)
        shapes: Shapes = {}
        for info in self._infos:
            if info.name in self._pins:
                shapes[info.name] = self._pins[info.name]
            elif info.name in self._rankless:
                shapes[info.name] = ranked[info.name]
            else:
                shapes[info.name] = tuple(
                    dim if isinstance(dim, int) and dim >= 0 else all_sizes[_key(info, axis)]
                    for axis, dim in enumerate(info.shape)
                )
        return shapes

    def _total(self, free: _Free, sizes: Mapping[Key, int]) -> int:
        """Past plus present, by the symbol's own formula where it is one."""
        if isinstance(free.key, str) and "+" in free.key:
            terms = [t.strip() for t in free.key.split("+")]
            values = [int(t) if t.isdigit() else sizes.get(t) for t in terms]
            if all(v is not None for v in values):
                return sum(v for v in values if v is not None)
        lengths: dict[Category, int] = {
            _category(info, axis): sizes[key]
            for info in self._infos
            for axis in range(len(info.shape))
            if isinstance(key := _key(info, axis), str) and key in sizes
        }
        # a present length may be fixed (1 while decoding) and then has no symbol
        if "past" in lengths:
            return lengths["past"] + lengths.get("sequence", 1)
        return lengths.get("sequence", sizes[free.key])

    def _size_in(self, shapes: Shapes, key: Key) -> int:
        for info in self._infos:
            for axis in range(len(info.shape)):
                if _key(info, axis) == key:
                    return shapes[info.name][axis]
        raise KeyError(key)

    @staticmethod
    def _distinct(candidates: Iterator[Shapes]) -> Iterator[Shapes]:
        seen: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()
        for shapes in candidates:
            key = tuple(sorted(shapes.items()))
            elements = sum(math.prod(shape) for shape in shapes.values())
            if key not in seen and elements <= MOST_ELEMENTS:
                seen.add(key)
                yield shapes


def check_pins(infos: Sequence[TensorInfo], pins: Mapping[str, tuple[int, ...]]) -> None:
    """Raise InputError where a pinned shape does not fit the input it names."""
    by_name = {info.name: info for info in infos}
    for name, shape in pins.items():
        if name not in by_name:
            known = ", ".join(by_name) or "none"
            raise InputError(f"--shape {name}: the model has no such input (its inputs: {known})")
        declared = by_name[name].shape
        if declared and len(declared) != len(shape):
            raise InputError(
                f"--shape {name}: {len(shape)} dimensions given, the model's input has "
                f"{len(declared)} ({_spell(declared)})"
            )
        for dim, size in zip(declared, shape, strict=False):
            if isinstance(dim, int) and dim >= 0 and dim != size:
                raise InputError(
                    f"--shape {name}: {_spell(shape)} contradicts the model's fixed "
                    f"{_spell(declared)}"
                )


def _spell(shape: Sequence[int | str | None]) -> str:
    return "x".join("?" if dim is None else str(dim) for dim in shape)


def _key(info: TensorInfo, axis: int) -> Key:
    symbol = info.shape[axis]
    if isinstance(symbol, str) and not _NAMELESS.fullmatch(symbol.lower()):
        return symbol
    return (info.name, axis)


def _category(info: TensorInfo, axis: int) -> Category:
    """What an open dimension most likely is."""
    symbol, rank = info.shape[axis], len(info.shape)
    is_float = any(kind in info.type for kind in ("float", "double"))
    if isinstance(symbol, str) and not _NAMELESS.fullmatch(symbol.lower()):
        for category, pattern in _PATTERNS:
            if pattern.search(symbol.lower()):
                if category == "sequence" and is_float and rank <= 2:
                    return "samples"
                return category
    if rank > 5:
        return "tiny"
    if axis == 0:
        return "batch" if rank > 1 else "other"
    if rank == 5:
        return "channel" if axis == 1 else "volume"
    if rank == 4:
        channels_last = isinstance(info.shape[3], int) and 0 < info.shape[3] <= 4
        if channels_last:
            return "spatial"
        return "channel" if axis == 1 else "spatial"
    if rank == 2:
        return "samples" if is_float else "sequence"
    if rank == 3 and axis == 1:
        # (layers, ?, hidden) is a recurrent state, (?, ?, features) a sequence
        layers, hidden = info.shape[0], info.shape[2]
        return "batch" if isinstance(layers, int) and layers > 1 and hidden else "sequence"
    return "other"
