"""A region's plan as a file: a SHA-256, and the JSON of which it is.

The images of the plan are named without their folder, each with the digest of its contents: a plan
fits these alone, as it has the offsets of functions in them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ort_optim.compiler.plan import Pointer, RegionPlan, Step

_DIGEST_BYTES = 32


def pack(plan: RegionPlan, digests: Sequence[str]) -> bytes:
    """The contents of the file; `digests` are those of the plan's images."""
    content = {
        "name": plan.name,
        "ranks": plan.ranks,
        "outputs": plan.outputs,
        "program": plan.program,
        "guards": plan.guards,
        "packed_bytes": plan.packed_bytes,
        "pack_steps": [_step_to_list(step) for step in plan.pack_steps],
        "slots": plan.slots,
        "steps": [_step_to_list(step) for step in plan.steps],
        "images": [[path.name, digest] for path, digest in zip(plan.images, digests, strict=True)],
    }
    text = json.dumps(content, separators=(",", ":")).encode()
    return hashlib.sha256(text).digest() + text


def unpack(contents: bytes, folder: Path) -> tuple[RegionPlan, list[str]] | None:
    """A plan with its images in `folder`, and their digests; None where the file is damaged."""
    text = contents[_DIGEST_BYTES:]
    if hashlib.sha256(text).digest() != contents[:_DIGEST_BYTES]:
        return None
    content: dict[str, Any] = json.loads(text)
    plan = RegionPlan(
        name=content["name"],
        ranks=tuple(content["ranks"]),
        outputs=tuple(map(tuple, content["outputs"])),
        program=tuple(map(tuple, content["program"])),
        guards=tuple(map(tuple, content["guards"])),
        packed_bytes=tuple(content["packed_bytes"]),
        pack_steps=tuple(map(_step_from_list, content["pack_steps"])),
        slots=tuple(map(tuple, content["slots"])),
        steps=tuple(map(_step_from_list, content["steps"])),
        images=tuple(folder / name for name, _ in content["images"]),
    )
    return plan, [digest for _, digest in content["images"]]


def _step_to_list(step: Step) -> list[Any]:
    pointers = [[each.kind, each.index, each.offset] for each in step.pointers]
    fields = (step.values, step.tasks, step.scratch_bytes, step.label)
    return [step.image, step.entry, pointers, *fields]


def _step_from_list(fields: list[Any]) -> Step:
    image, entry, pointers, values, tasks, scratch_bytes, label = fields
    return Step(
        image=image,
        entry=entry,
        pointers=tuple(Pointer(*each) for each in pointers),
        values=tuple(values),
        tasks=tasks,
        scratch_bytes=scratch_bytes,
        label=label,
    )
