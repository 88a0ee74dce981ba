"""`python -m tests.runtime.tamper SEED COUNT`: damaged models in sessions with and without us.

Whatever ONNX Runtime runs by itself must run in our session too, with the same results: regions
that are not what they should be are left to it. What it refuses we may refuse as well. Anything
else ends this process, or is an error of its own. Counts of outcomes go to stdout.
"""

from __future__ import annotations

import logging
import random
import sys
from collections import Counter
from collections.abc import Callable

import numpy as np
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto

from ort_optim.errors import InputError
from ort_optim.runtime.prepare import INTERNAL
from ort_optim.runtime.session import InferenceSession, stats
from tests.graph.regions.harness import forged
from tests.runtime.networks import Array, chain, feeds_of, residual, tiled
from tests.runtime.sessions import options

RTOL = 1e-3
ILL_CONDITIONED = 1e6
"""Results as large as that (an Exp of what should have been small) say nothing."""
NUMBERS = (*range(-2, 5), 7, 8, 16, 17, 31, 64, 1000, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63))
WORDS = ("", "direct", "pointwise", "winograd_f43", "winograd_f23", "first_layer", "depthwise", "x")
LAYOUTS = ("nchw16c", "nchw8c", "nchw", "")


def main() -> None:
    logging.disable()
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    cases = [(tiled(each), feeds_of(each, N=2)) for each in (residual(), chain())]
    outcomes: Counter[str] = Counter()
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        model, feeds = cases[number % len(cases)]
        made = mutated(model, rng)
        if made is None:
            outcomes["no model"] += 1
            continue
        outcomes[outcome(made, feeds, f"seed {seed}, number {number}")] += 1
    print(dict(outcomes))


def mutated(model: ModelProto, rng: random.Random) -> ModelProto | None:
    """The model with its region's part changed; half of them with names that fit the change."""
    made = ModelProto.FromString(model.SerializeToString())
    if rng.random() < 0.3:
        return with_damaged_bytes(made, rng)
    for _ in range(rng.choice((1, 1, 2))):
        rng.choice(CHANGES)(made, rng)
    if rng.random() < 0.6:
        try:
            return forged(made)
        except (AssertionError, ValueError):  # what no name fits
            return made
    return made


def with_damaged_bytes(made: ModelProto, rng: random.Random) -> ModelProto | None:
    """Some bytes of a function or a call are others."""
    part = rng.choice([*made.functions, *calls(made)])
    raw = bytearray(part.SerializeToString())
    for _ in range(rng.choice((1, 1, 2, 4))):
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    try:
        part.ParseFromString(bytes(raw))
        made.SerializeToString()
    except (DecodeError, UnicodeDecodeError, ValueError):
        return None
    return made


def calls(made: ModelProto) -> list[NodeProto]:
    return [node for node in made.graph.node if node.domain == "ort_optim"]


def change_body_attribute(made: ModelProto, rng: random.Random) -> None:
    node = rng.choice(list(rng.choice(made.functions).node))
    if not node.attribute:
        return
    attribute = rng.choice(list(node.attribute))
    if attribute.type == AttributeProto.INTS and attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
    elif attribute.type == AttributeProto.INT:
        attribute.i = rng.choice(NUMBERS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))
    else:
        node.attribute.remove(attribute)


def drop_body_attribute(made: ModelProto, rng: random.Random) -> None:
    node = rng.choice(list(rng.choice(made.functions).node))
    if node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


def change_operator(made: ModelProto, rng: random.Random) -> None:
    node = rng.choice(list(rng.choice(made.functions).node))
    node.op_type = rng.choice(
        ("Relu", "Conv", "Add", "Identity", "MaxPool", "Concat", "Exp", "Mul")
    )


def rewire(made: ModelProto, rng: random.Random) -> None:
    function = rng.choice(made.functions)
    node = rng.choice(list(function.node))
    names = [*function.input, *(name for each in function.node for name in each.output), ""]
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def drop_body_node(made: ModelProto, rng: random.Random) -> None:
    function = rng.choice(made.functions)
    del function.node[rng.randrange(len(function.node))]


def change_output(made: ModelProto, rng: random.Random) -> None:
    function = rng.choice(made.functions)
    names = [name for each in function.node for name in each.output]
    function.output[0] = rng.choice([*names, *function.input])


def change_call_text(made: ModelProto, rng: random.Random) -> None:
    call = rng.choice(calls(made))
    key = rng.choice(("template", "tile", "layout", "target"))
    attribute = next(each for each in call.attribute if each.name == key)
    if key == "layout":
        attribute.s = rng.choice(LAYOUTS).encode()
    elif key == "target":
        attribute.s = b"another machine"
    else:
        at = rng.randrange(len(attribute.strings))
        tile = ",".join(
            f"{name}={rng.choice((0, 1, 2, 3, 7, 16, 999999999))}"
            for name in rng.sample(("mr", "nr", "t", "g", "kc"), rng.randrange(3))
        )
        attribute.strings[at] = (rng.choice(WORDS) if key == "template" else tile).encode()


def swap_call_inputs(made: ModelProto, rng: random.Random) -> None:
    call = rng.choice(calls(made))
    i, j = rng.randrange(len(call.input)), rng.randrange(len(call.input))
    call.input[i], call.input[j] = call.input[j], call.input[i]


def change_weight_shape(made: ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(list(made.graph.initializer))
    at = rng.randrange(len(tensor.dims))
    if rng.random() < 0.5:
        tensor.dims[at] = rng.choice(NUMBERS)
    else:
        dims = list(tensor.dims)
        rng.shuffle(dims)
        tensor.dims[:] = dims


def change_stated_type(made: ModelProto, rng: random.Random) -> None:
    info = rng.choice([*made.graph.value_info, *made.graph.input, *made.graph.output])
    tensor = info.type.tensor_type
    if rng.random() < 0.3:
        tensor.ClearField("shape")
    elif tensor.shape.dim:
        tensor.shape.dim[rng.randrange(len(tensor.shape.dim))].dim_value = rng.choice(NUMBERS)


def change_version(made: ModelProto, rng: random.Random) -> None:
    version = rng.choice((1, 6, 7, 11, 13, 18, 22))
    for imports in (made.opset_import, *(each.opset_import for each in made.functions)):
        for each in imports:
            if not each.domain:
                each.version = version


CHANGES: tuple[Callable[[ModelProto, random.Random], None], ...] = (
    change_body_attribute,
    change_body_attribute,
    drop_body_attribute,
    change_operator,
    rewire,
    rewire,
    drop_body_node,
    change_output,
    change_call_text,
    change_call_text,
    swap_call_inputs,
    change_weight_shape,
    change_stated_type,
    change_version,
)


def outcome(model: ModelProto, feeds: dict[str, Array], which: str) -> str:
    """ "ran", "left" or "refused"; raises AssertionError for what must not be."""
    contents = model.SerializeToString()
    wanted = attempt(lambda: ort.InferenceSession(contents, options()), feeds)
    found = attempt(lambda: InferenceSession(contents, options()), feeds)
    if isinstance(wanted, Exception):
        if isinstance(found, Exception):
            known = (InputError, type(wanted), RuntimeError, ValueError)
            if not isinstance(found, known) and "onnxruntime" not in type(found).__module__:
                raise AssertionError(f"{which}: {found!r}") from found
            return "refused"
        return "ran where ONNX Runtime does not"
    if isinstance(found, Exception):
        raise AssertionError(f"{which}: ONNX Runtime runs it, we do not") from found
    session, results = found
    for ours, theirs in zip(results, wanted[1], strict=True):
        assert ours.shape == theirs.shape, which
        largest = float(np.abs(theirs).max(initial=1.0))
        if largest < ILL_CONDITIONED:
            assert np.allclose(ours, theirs, rtol=RTOL, atol=RTOL * largest), which
    told = stats(session)
    assert not any(INTERNAL in reason for reason in told.left.values()), f"{which}: {told.left}"
    return "ran" if told.regions else "left"


def attempt(
    make: Callable[[], ort.InferenceSession], feeds: dict[str, Array]
) -> tuple[ort.InferenceSession, list[Array]] | Exception:
    try:
        session = make()
        return session, session.run(None, feeds)
    except Exception as error:
        return error


if __name__ == "__main__":
    main()
