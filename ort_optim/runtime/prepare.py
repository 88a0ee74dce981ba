"""From a model with regions to what the native library runs: which regions, and how.

prepare     a model's regions, compiled for one machine, as an extension of its sessions
Prepared    the extension, the plans in it, and why other regions are left to ONNX Runtime

A region is compiled from its body alone, as the session's model holds it. Whatever is wrong with
it is found here, before there is a session: the region is then left to ONNX Runtime, which runs
the body.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, TensorProto

from ort_optim.compiler.build import BuildError, Progress, compile_all
from ort_optim.compiler.cache import CodeCache, PlanCache
from ort_optim.compiler.code import CodeFile
from ort_optim.compiler.draft import Draft, finish
from ort_optim.compiler.layers import Convolution, LayerGraph
from ort_optim.compiler.lower import Choice, lower
from ort_optim.compiler.parse import Input, fact_of, parse
from ort_optim.compiler.plan import RegionPlan
from ort_optim.compiler.scope import TensorFact
from ort_optim.engine import Extension
from ort_optim.graph.regions import Call, Tiling, sound_calls
from ort_optim.graph.shapes import infer
from ort_optim.graph.skeleton import skeleton_model
from ort_optim.hardware import Target
from ort_optim.kernels.base import Kernel, Tile
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.rule import Resources, choose
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.templates import TEMPLATES, find_template
from ort_optim.runtime import blob
from ort_optim.runtime.library import library_path
from ort_optim.runtime.machine import fingerprint, isa_of, layout_name

log = logging.getLogger("ort_optim")

Facts = Mapping[str, TensorFact]

IMAGE_RANK = 4
LARGEST = 2**63 - 1  # in a plan

INTERNAL = "internal error"
"""How the reason begins where it is our fault that a region is left."""


class _Refusal(Exception):  # noqa: N818
    """A region can't be run by code of ours; the message says why."""


@dataclass(frozen=True)
class Prepared:
    """The regions of a model, ready to run.

    Attributes:
        extension: What sessions of the model must register; None if no region is left.
        plans: The regions in it.
        left: By name, why a region is left to ONNX Runtime.
        moved_from: The machine that the model's templates were chosen for, if it is another one.
    """

    extension: Extension | None
    plans: tuple[RegionPlan, ...]
    left: Mapping[str, str]
    moved_from: str | None


def prepare(
    model: ModelProto,
    target: Target,
    threads: int,
    cache: CodeCache,
    *,
    progress: Progress | None = None,
    time_steps: bool = False,
) -> Prepared:
    """Compile the regions of a model for sessions with `threads` intra-op threads.

    `progress` is told of kernels that have to be compiled; `time_steps` lets the native library
    measure each step of a plan.
    """
    sound = sound_calls(model)
    left = dict(sound.refused)
    isa = isa_of(target)
    calls = _by_name(sound.calls)
    if isinstance(isa, str):
        return Prepared(None, (), left | dict.fromkeys(calls, isa), None)
    machine = _Machine(isa, Resources.of(target), fingerprint(target))
    plans, unplanned = _plans(calls, _facts(model, sound.calls), machine, cache, progress)
    left |= unplanned
    extension = None
    if plans:
        encoded = blob.encode(plans, threads=threads, time_steps=time_steps)
        extension = Extension(library_path(), encoded)
    others = {call.tiling.target for call in sound.calls if call.tiling} - {machine.fingerprint}
    return Prepared(extension, plans, left, min(others, default=None))


@dataclass(frozen=True)
class _Machine:
    """What regions are compiled for."""

    isa: Isa
    resources: Resources
    fingerprint: str


@dataclass(frozen=True)
class _Region:
    """What all calls of a region share; `given` is what holds for the inputs of every one."""

    call: Call
    tiling: Tiling
    given: tuple[Input, ...]

    @property
    def key(self) -> str:
        """All that its plan follows from on one machine. The name is a hash of the body without
        the names of its nodes, which labels of steps have."""
        labels = [(node.name, *node.output) for node in self.call.body]
        return repr((self.call.function.name, self.tiling, self.given, labels))


def _plans(
    calls: Mapping[str, Sequence[Call]],
    facts: Facts,
    machine: _Machine,
    code_cache: CodeCache,
    progress: Progress | None,
) -> tuple[tuple[RegionPlan, ...], dict[str, str]]:
    """The plans of regions, from the cache where they are there; and why others have none."""
    plan_cache = PlanCache(code_cache, repr(machine))
    plans: dict[str, RegionPlan] = {}
    drafts: dict[str, tuple[_Region, Draft]] = {}
    left: dict[str, str] = {}
    for name, same in calls.items():
        try:
            region = _region(same, facts)
            plan = plan_cache.find(region.key)
            if plan is None:
                drafts[name] = region, _draft(region, machine)
            else:
                plans[name] = plan
        except _Refusal as reason:
            left[name] = str(reason)
        except Exception as error:  # a body that nobody thought of must not cost the session
            log.warning("region %s can't be compiled", name, exc_info=True)
            left[name] = f"{INTERNAL}: {error!r}"
    kernels = [kernel for _, draft in drafts.values() for kernel in draft.kernels]
    code = compile_all(kernels, machine.isa, code_cache, progress=progress)
    for name, (region, draft) in drafts.items():
        made = _plan(draft, code)
        if isinstance(made, str):
            left[name] = made
        else:
            plans[name] = made
            plan_cache.store(region.key, made)
    return tuple(plans[name] for name in calls if name in plans), left


def _by_name(calls: Sequence[Call]) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = {}
    for call in calls:
        found.setdefault(call.function.name, []).append(call)
    return found


def _facts(model: ModelProto, calls: Sequence[Call]) -> Facts:
    """Types and shapes of what calls are given; inferred where the graph's inputs do not say it.

    Files state sizes that are out of date, so these count as little as names. But where inference
    finds no rank or no channels (after an If, say), what is stated of them does: that is checked in
    each run, and no file that ran before has it wrong.
    """
    facts = {info.name: fact_of(info) for info in model.graph.input}
    for tensor in model.graph.initializer:
        facts[tensor.name] = TensorFact(tensor.data_type, tuple(tensor.dims))
    if any(name not in facts for call in calls for name in call.node.input):
        inferred = _inferred(model)
        stated = {info.name: fact_of(info) for info in model.graph.value_info}
        for name in {name for call in calls for name in call.node.input} - facts.keys():
            facts[name] = _with_channels(inferred.get(name, _UNKNOWN), stated.get(name, _UNKNOWN))
    return facts


def _inferred(model: ModelProto) -> Facts:
    """Types and shapes that inference finds; none in a model too damaged to be copied."""
    try:
        bare = skeleton_model(model, with_value_info=False)
        for info in bare.graph.output:
            info.type.tensor_type.ClearField("shape")
        graph = infer(bare).graph
        return {info.name: fact_of(info) for info in (*graph.output, *graph.value_info)}
    except (KeyError, TypeError, ValueError):  # no UTF-8, unknown types
        return {}


_UNKNOWN = TensorFact(TensorProto.UNDEFINED, None)


def _with_channels(found: TensorFact, stated: TensorFact) -> TensorFact:
    """What was found of a tensor; if need be with the rank and the channels that are stated."""
    if stated.dims is None or len(stated.dims) != IMAGE_RANK:
        return found
    dims = (None,) * IMAGE_RANK if found.dims is None else found.dims
    if len(dims) == IMAGE_RANK and dims[1] is None:
        dims = (dims[0], stated.dims[1], *dims[2:])
    element_type = found.element_type or stated.element_type
    return TensorFact(element_type, dims)


def _region(calls: Sequence[Call], facts: Facts) -> _Region:
    """The region of these calls."""
    call = calls[0]
    given = [
        Input(
            formal.name,
            _common([facts.get(each.node.input[i]) for each in calls]),
            formal.is_constant,
        )
        for i, formal in enumerate(call.inputs)
    ]
    tiling = call.tiling
    if tiling is None or any(each.tiling != tiling for each in calls):
        raise _Refusal("its calls differ in their attributes")
    return _Region(call, tiling, tuple(given))


def _draft(region: _Region, machine: _Machine) -> Draft:
    """The steps of a region."""
    call = region.call
    graph = parse(
        call.function.name,
        call.body,
        call.constants,
        region.given,
        list(call.function.output),
        call.imports.get("", 0),
    )
    if isinstance(graph, str):
        raise _Refusal(graph)
    draft = lower(graph, _choices(graph, region.tiling, machine), machine.isa)
    if isinstance(draft, str):
        raise _Refusal(draft)
    return draft


def _plan(draft: Draft, code: Mapping[Kernel, CodeFile | BuildError]) -> RegionPlan | str:
    """The plan of a region, or why there is none that the native library could read."""
    plan = finish(draft, code)
    if isinstance(plan, RegionPlan):
        constants = [value for operation, value, _ in plan.program if operation == "const"]
        numbers = (*constants, *plan.packed_bytes, *(value for _, value in plan.guards))
        if max(map(abs, numbers), default=0) > LARGEST:
            return "sizes of more than 63 bits"
    return plan


def _common(facts: Sequence[TensorFact | None]) -> TensorFact | None:
    """What holds for a tensor of every call: dimensions that differ are not known."""
    first = facts[0]
    for other in facts[1:]:
        if first is None or other is None or first.element_type != other.element_type:
            return None
        if first.dims is None or other.dims is None or len(first.dims) != len(other.dims):
            return None
        dims = (a if a == b else None for a, b in zip(first.dims, other.dims, strict=True))
        first = TensorFact(first.element_type, tuple(dims))
    return first


def _choices(graph: LayerGraph, tiling: Tiling, machine: _Machine) -> list[Choice]:
    """Template and tile of each convolution: those of the file, or on another machine the rule's.

    The rule may then take no template of a worse error class than the one that was verified.
    """
    specs = [each.op.spec for each in graph.convolutions if isinstance(each.op, Convolution)]
    if len(tiling.template) != len(specs):
        raise _Refusal(f"it names {len(tiling.template)} templates for {len(specs)} convolutions")
    if tiling.target == machine.fingerprint and tiling.layout != layout_name(machine.isa):
        raise _Refusal(f"its layout is {tiling.layout}, not {layout_name(machine.isa)}")
    found = []
    for spec, name, tile in zip(specs, tiling.template, tiling.tile, strict=True):
        template = find_template(name)
        if template is None:
            raise _Refusal(f"there is no template '{name}'")
        if tiling.target == machine.fingerprint:
            found.append(Choice(template, _tile(tile)))
        else:
            found.append(_rule(spec, machine, template.error_class))
    return found


def _rule(spec: ConvSpec, machine: _Machine, worst_error_class: int) -> Choice:
    choice = choose(
        spec, machine.resources, machine.isa, TEMPLATES, worst_error_class=worst_error_class
    )
    template = find_template(choice.template or "")
    if template is None or choice.tile is None:
        raise _Refusal(f"no template fits this machine: {choice.reason}")
    return Choice(template, choice.tile)


def _tile(text: str) -> Tile:
    try:
        return Tile.parse(text)
    except ValueError as error:
        raise _Refusal(str(error)) from None
