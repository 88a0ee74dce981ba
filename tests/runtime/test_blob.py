"""What Python writes and the library reads: plans arrive whole, damaged ones are refused."""

from __future__ import annotations

import dataclasses
import struct
import subprocess
import sys

import pytest

from ort_optim.compiler.plan import Pointer, RegionPlan, Step
from ort_optim.runtime import library
from ort_optim.runtime.blob import encode
from tests.runtime.regions import Code, plan_of
from tests.toolbox import ROOT, environment


def stage(plan: RegionPlan, threads: int = 1) -> int:
    return library.stage(encode([plan], threads=threads))


def test_a_plan_is_accepted_and_registrations_are_numbered(code: Code) -> None:
    first = stage(plan_of(code, 8))
    assert stage(plan_of(code, 8)) > first


def test_no_regions_are_a_plan_too() -> None:
    library.stage(encode([], threads=1))


def test_equal_plans_are_kept_once(code: Code) -> None:
    plan = plan_of(code, 8, name="R_kept_once")
    stage(plan)
    before = library.totals().plans
    stage(plan)
    assert library.totals().plans == before
    stage(plan, threads=2)
    assert library.totals().plans == before + 1


def test_a_blob_is_refused_at_every_length_but_its_own(code: Code) -> None:
    blob = encode([plan_of(code, 8)], threads=1)
    for length in range(len(blob)):
        stated = blob[:8] + struct.pack("<q", length) + blob[16:length]
        for cut in (blob[:length], stated[:length]):
            with pytest.raises(library.LibraryError):
                library.stage(cut)
    with pytest.raises(library.LibraryError, match="lost its end"):
        library.stage(blob + bytes(8))


def changed_step(plan: RegionPlan, **changes: object) -> RegionPlan:
    step = dataclasses.replace(plan.steps[0], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(plan, steps=(step, *plan.steps[1:]))


def changed_pack(plan: RegionPlan, pointer: Pointer) -> RegionPlan:
    step = dataclasses.replace(plan.pack_steps[0], pointers=(pointer,))
    return dataclasses.replace(plan, pack_steps=(step,))


BAD = {
    "a name that is no name": (lambda p: dataclasses.replace(p, name="R-x"), "other characters"),
    "no name": (lambda p: dataclasses.replace(p, name=""), "empty"),
    "a long name": (lambda p: dataclasses.replace(p, name="R" * 256), "name of a region 256"),
    "no inputs": (lambda p: dataclasses.replace(p, ranks=()), "R_test: "),
    "no outputs": (lambda p: dataclasses.replace(p, outputs=(), steps=()), "inputs and outputs"),
    "a negative rank": (lambda p: dataclasses.replace(p, ranks=(-1, 3)), "rank -1"),
    "a high rank": (lambda p: dataclasses.replace(p, ranks=(17, 3)), "rank 17"),
    "an axis beyond": (
        lambda p: dataclasses.replace(p, program=(*p.program, ("dim", 1, 3))),
        "axis 3",
    ),
    "an input beyond": (
        lambda p: dataclasses.replace(p, program=(*p.program, ("dim", 2, 0))),
        "input of a dim 2",
    ),
    "a row that refers to itself": (
        lambda p: dataclasses.replace(p, program=(*p.program, ("add", len(p.program), 0))),
        "row used by a later row",
    ),
    "a row that refers back too far": (
        lambda p: dataclasses.replace(p, program=(*p.program, ("max", 0, -1))),
        "row used by a later row -1",
    ),
    "an output of no size": (
        lambda p: dataclasses.replace(p, outputs=((0, 1, 2, 99),)),
        "dims of an output 99",
    ),
    "a guard of no size": (
        lambda p: dataclasses.replace(p, guards=((99, 1),)),
        "size of a guard 99",
    ),
    "negative packed bytes": (
        lambda p: dataclasses.replace(p, packed_bytes=(-1,)),
        "bytes of a packed weight -1",
    ),
    "a slot of no size": (lambda p: dataclasses.replace(p, slots=((99,),)), "sizes of a slot 99"),
    "tasks of no size": (lambda p: changed_step(p, tasks=99), "tasks of a step 99"),
    "scratch of no size": (lambda p: changed_step(p, scratch_bytes=-1), "scratch of a step -1"),
    "a value of no size": (lambda p: changed_step(p, values=(99,)), "value of a step 99"),
    "a pointer to no input": (
        lambda p: changed_step(p, pointers=(Pointer("input", 2, 0),)),
        "buffer of a pointer 2",
    ),
    "a pointer to no slot": (
        lambda p: changed_step(p, pointers=(Pointer("arena", 1, 0),)),
        "buffer of a pointer 1",
    ),
    "an offset of no size": (
        lambda p: changed_step(p, pointers=(Pointer("input", 0, 99),)),
        "offset of a pointer 99",
    ),
    "packing into an output": (
        lambda p: changed_pack(p, Pointer("output", 0, 0)),
        "buffer of a pointer 0",
    ),
    "packing through the arena": (
        lambda p: changed_pack(p, Pointer("arena", 0, 0)),
        "buffer of a pointer 0",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_plan_is_refused_with_what_is_wrong(code: Code, what: str) -> None:
    change, message = BAD[what]
    with pytest.raises(library.LibraryError, match=message):
        stage(change(plan_of(code, 8)))


@pytest.mark.parametrize("threads", [-1, 0, 1025])
def test_a_number_of_threads_that_can_not_be_is_refused(code: Code, threads: int) -> None:
    with pytest.raises(library.LibraryError, match=f"threads {threads}"):
        stage(plan_of(code, 8), threads)


def test_images_are_named_once_and_each_region_counts_its_own(code: Code) -> None:
    plan = plan_of(code, 8)
    unused = dataclasses.replace(plan, name="R_other", images=(code.path, code.path))
    blob = encode([plan, unused], threads=1)
    assert blob.count(str(code.path).encode()) == 1
    library.stage(blob)


def test_a_step_may_have_no_arguments(code: Code) -> None:
    plan = plan_of(code, 8)
    bare = Step(0, code.entries["nothing"], (), (), 0, 0, "")
    stage(dataclasses.replace(plan, steps=(bare,), slots=(), guards=()))


@pytest.mark.parametrize("seed", [1, 2])
def test_thousands_of_damaged_plans_end_in_errors_not_in_crashes(seed: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.runtime.mutate", str(seed), "2500"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert all(outcome in ran.stdout for outcome in ("refused", "no session", "error", "ran"))
