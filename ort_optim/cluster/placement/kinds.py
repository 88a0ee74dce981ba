"""Whole machines or a fragment: what a job is in a given cluster, and where it may go.

1. `servers: N` is N whole servers of class one; the other amounts say what each must have.
2. Let G be the most devices of any class-one server that has the GPU model, GPU memory and
   labels asked for. G or more GPUs are ceil(gpus / G) whole servers, all or nothing: of 8 GPUs
   each, 8 take one, 9 to 16 take two. CPUs and memory are shared out evenly over them. Where
   class one has too few such servers, the next smaller G counts.
3. Fewer than G GPUs, 0 included, are a fragment: on one server of class two, also while class
   one is idle. Where no class-one server has what is asked for, any number is a fragment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.placement.capacity import WHOLE, Integers, Inventory, Mask


@dataclass(frozen=True, eq=False)
class Kind:
    """What jobs of equal needs are.

    Attributes:
        need: What each server must have.
        whole: How many whole servers; 0 for a fragment.
        servers: Indices of servers that may be used: of class one for whole machines, of class two
            for a fragment.
        spare: For a fragment: class-one servers that it may use; none without backfill.
        refusal: Why it can never be placed; empty if it can.
        why: The rule by which it is what it is.
    """

    need: Resources
    whole: int
    servers: Integers
    spare: Integers
    refusal: str
    why: str


def kind_of(
    need: Resources,
    inventory: Inventory,
    one: Mask,
    *,
    backfill: bool = False,
    widest: Mask | None = None,
) -> Kind:
    """What a job that needs `need` is.

    Args:
        one: (S,) the servers of class one; all others are class two.
        backfill: Fragments may use class one, so one that fits nowhere else is not refused.
        widest: (S,) what class one could have been. A job that is too large even for that is told
            so, and not that what was left of its servers is too small.
    """
    kind = _kind_of(need, inventory, one, backfill)
    if kind.refusal and widest is not None:
        largest = _kind_of(need, inventory, widest, backfill)
        if largest.whole and largest.refusal:
            return replace(kind, refusal=largest.refusal)
    return kind


def _kind_of(need: Resources, inventory: Inventory, one: Mask, backfill: bool) -> Kind:
    if need.servers:
        return _whole(need, need.servers, inventory, one, f"{need.servers} whole servers asked for")
    if need.whole_devices:
        whole = _whole_by_gpus(need, inventory, one)
        if whole is not None:
            return whole
    admitted = inventory.admits(need)
    servers, spare = np.flatnonzero(admitted & ~one), np.flatnonzero(admitted & one)
    refusal = ""
    if not len(servers) and not (backfill and len(spare)):
        refusal = f"fragment: {shortage(need, inventory, ~one, 'class-two')}"
        if len(spare):
            refusal += "; class one has room for it with --backfill"
    return Kind(need, 0, servers, spare if backfill else spare[:0], refusal, "fragment")


def _whole_by_gpus(need: Resources, inventory: Inventory, one: Mask) -> Kind | None:
    """Rule 2; None if it is a fragment."""
    affine = inventory.admits(replace(need, milli_cpus=0, memory=0, milli_gpus=WHOLE)) & one
    gpus = need.whole_devices
    counts = sorted({int(count) for count in inventory.devices[affine]}, reverse=True)
    if not counts or gpus < counts[0]:
        return None
    kinds = []
    for count in counts:
        if gpus >= count:
            whole = -(-gpus // count)
            each = replace(
                need,
                milli_cpus=-(-need.milli_cpus // whole),
                memory=-(-need.memory // whole),
                milli_gpus=-(-gpus // whole) * WHOLE,
            )
            why = f"{gpus} GPUs at {count} a server: {whole} whole"
            kinds.append(_whole(each, whole, inventory, one, why))
    return next((kind for kind in kinds if not kind.refusal), kinds[0])


def _whole(need: Resources, whole: int, inventory: Inventory, one: Mask, why: str) -> Kind:
    servers = np.flatnonzero(inventory.admits(need) & one)
    refusal = ""
    if not len(servers):
        refusal = f"{why}: {shortage(need, inventory, one, 'class-one')}"
    elif len(servers) < whole:
        refusal = f"{why}: class one has only {len(servers)} with what each must have"
    return Kind(need, whole, servers, servers[:0], refusal, why)


def shortage(need: Resources, inventory: Inventory, among: Mask, told: str) -> str:
    """The first thing asked for that no server of `among` has: "no class-two server has ..."."""
    if not among.any():
        return f"there is no {told} server"
    if inventory.drained[among].all():
        return f"all {told} servers are drained"
    labels = ", ".join(f"{key}={value}" for key, value in sorted(need.labels.items()))
    models = " or ".join(sorted(need.gpu_models))
    gpus = need.milli_gpus / WHOLE
    asked = (
        ({"labels": need.labels}, f"the labels {labels}"),
        ({"gpu_models": need.gpu_models}, f"a GPU of model {models}"),
        ({"gpu_memory": need.gpu_memory}, f"GPUs of {need.gpu_memory / 2**30:g} GiB"),
        ({"milli_gpus": need.milli_gpus}, f"{gpus:g} GPU{'s' if gpus > 1 else ''}"),
        ({"milli_cpus": need.milli_cpus}, f"{need.milli_cpus / 1000:g} CPUs"),
        ({"memory": need.memory}, f"{need.memory / 2**30:g} GiB of memory"),
    )
    so_far = Resources(milli_cpus=0)
    told_so_far: list[str] = []
    for change, text in asked:
        so_far = replace(so_far, **change)
        if any(change.values()):
            told_so_far.append(text)
        if not (inventory.admits(so_far) & among).any():
            if len(told_so_far) == 1:
                return f"no {told} server has {text}"
            return f"no {told} server has {told_so_far[-1]} beside {', '.join(told_so_far[:-1])}"
    return f"no {told} server is large enough"
