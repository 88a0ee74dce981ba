"""Which values share memory: concats that need no copy, slices that are views.

    Placement   for each value the value whose memory it lies in, and at which channel
    place       decides it
    Target      an output of the region that a value goes to, and at which channel

A value lies in memory of its own, or in that of another value from some channel on. Blocks of
channels lie one behind the other, so at a channel that is a multiple of v a value is a view with
the strides of the whole.

    (1) A slice that begins at such a channel is a view of what it is cut from.
    (2) The inputs of a concat are made where they belong. Concats are looked at from the last to
        the first, so a value that several read is made in the largest; where its inputs lie side
        by side in one memory already, a smaller one is a view, as in a DenseNet.
    (3) An input that can't lie there (its channel is no multiple of v, it lies elsewhere already)
        is copied when the concat is due. Its lanes may be written before by the input ahead of it,
        whose last vector is not full: the copy comes later.
    (4) What is widened with zeros is made in the wider memory, if it can lie there.
    (5) A concat that only goes out of the region is not made: its inputs go out one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ort_optim.compiler.layers import Concat, Layer, LayerGraph, Slice, Widen


@dataclass(frozen=True)
class Target:
    """A place in an output of the region."""

    output: int
    channel: int


class Placement:
    """Where values lie, relative to each other."""

    def __init__(self, channels: Sequence[int]) -> None:
        self._channels = channels
        self._inside: dict[int, tuple[int, int]] = {}

    def root(self, value: int) -> tuple[int, int]:
        """The value in whose memory this one lies, and its first channel there."""
        channel = 0
        while value in self._inside:
            value, further = self._inside[value]
            channel += further
        return value, channel

    def is_free(self, value: int) -> bool:
        """Whether it lies in memory of its own, so far."""
        return value not in self._inside

    def can_put(self, value: int, into: int) -> bool:
        """Whether a value is free, and the other does not lie in it."""
        return self.is_free(value) and self.root(into)[0] != value

    def put(self, value: int, into: int, channel: int) -> None:
        """Let a free value lie in another one, from `channel` on."""
        assert self.can_put(value, into)
        self._inside[value] = (into, channel)

    def is_at(self, value: int, into: int, channel: int) -> bool:
        """Whether a value lies at this channel of another one."""
        where, start = self.root(into)
        return self.root(value) == (where, start + channel)

    def run_from(self, values: Sequence[int]) -> bool:
        """Whether values lie side by side, in this order, in the memory of another one."""
        where, channel = self.root(values[0])
        for value in values:
            if self.root(value) != (where, channel):
                return False
            channel += self._channels[value]
        return channel <= self._channels[where]


def place(graph: LayerGraph, lanes: int, may_lie_in: Callable[[int], bool]) -> Placement:
    """Where the values of a region lie. `may_lie_in` tells of a value whether it is in blocked
    memory at all."""
    channels = [shape.C for shape in graph.shapes]
    placement = Placement(channels)
    slices: dict[int, dict[int, int]] = {}
    """Views by what they are cut from, and first channel."""
    for layer in graph.layers:
        if isinstance(layer.op, Slice) and layer.op.start % lanes == 0:
            placement.put(layer.output, layer.inputs[0], layer.op.start)
            slices.setdefault(layer.inputs[0], {})[layer.op.start] = layer.output
    for layer in reversed(graph.layers):
        if not may_lie_in(layer.output):
            continue
        if isinstance(layer.op, Concat):
            _place_concat(layer, placement, channels, lanes, slices, may_lie_in)
        elif isinstance(layer.op, Widen):
            narrow = layer.inputs[0]
            if placement.can_put(narrow, layer.output) and may_lie_in(narrow):
                placement.put(narrow, layer.output, 0)
    return placement


def _place_concat(
    layer: Layer,
    placement: Placement,
    channels: Sequence[int],
    lanes: int,
    slices: dict[int, dict[int, int]],
    may_lie_in: Callable[[int], bool],
) -> None:
    """(2)"""
    parts, whole = layer.inputs, layer.output
    if placement.is_free(whole) and len(parts) > 1 and placement.run_from(parts):
        where, channel = placement.root(parts[0])
        if where != whole and channel % lanes == 0:
            placement.put(whole, where, channel)
            return
    channel = 0
    for number, part in enumerate(parts):
        if channel % lanes == 0:
            owner = _cut_up(parts[number:], slices, channels)
            free = part if owner is None else owner
            if placement.can_put(free, whole) and may_lie_in(free):
                placement.put(free, whole, channel)
        channel += channels[part]


def _cut_up(
    parts: Sequence[int], slices: dict[int, dict[int, int]], channels: Sequence[int]
) -> int | None:
    """The value of which the first parts are all slices, in order."""
    for owner, views in slices.items():
        if views.get(0) != parts[0]:
            continue
        channel = 0
        for part in parts:
            if channel == channels[owner] or views.get(channel) != part:
                break
            channel += channels[part]
        if channel == channels[owner]:
            return owner
    return None


def exports(graph: LayerGraph, reads: Callable[[int], int]) -> dict[int, list[Target]]:
    """For each value that leaves the region where it goes. (5): concats that nothing in the region
    reads (`reads` counts) are replaced by their inputs."""
    makers = {layer.output: layer for layer in graph.layers}
    found: dict[int, list[Target]] = {}
    gone: Counter[int] = Counter()  # reads by concats that are not made

    def send(value: int, target: Target, outputs: int) -> None:
        maker = makers.get(value)
        if (
            maker is not None
            and isinstance(maker.op, Concat)
            and reads(value) == gone[value]
            and graph.outputs.count(value) == outputs
        ):
            channel = target.channel
            gone.update(maker.inputs)
            for part in maker.inputs:
                send(part, Target(target.output, channel), 0)
                channel += graph.shapes[part].C
        else:
            found.setdefault(value, []).append(target)

    for output, value in enumerate(graph.outputs):
        send(value, Target(output, 0), 1)
    return found
