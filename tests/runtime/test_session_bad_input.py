"""Files that somebody changed: a region that is not what it should be is left to ONNX Runtime."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from ort_optim.graph.regions import Tiling
from ort_optim.runtime.session import stats
from tests.graph.regions.harness import forged
from tests.runtime.networks import assert_close, chain, feeds_of, names_of, plain, tiled
from tests.runtime.opened import left, opened
from tests.toolbox import environment

pytestmark = pytest.mark.usefixtures("warm")

FEEDS = feeds_of(chain(), N=2)
Change = Callable[[ModelProto], object]


def check_left(model: ModelProto, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """The first call's region is left for this reason, said in a warning; results are ORT's."""
    caplog.clear()
    session = opened(model)
    name = names_of(model)[0]
    assert reason in left(session)[name]
    assert name not in stats(session).regions
    assert any(name in line and reason in line for line in caplog.messages)
    # other regions of the model may still be ours
    assert_close(session.run(None, FEEDS), plain(model, FEEDS))


def text(model: ModelProto, key: str) -> AttributeProto:
    return next(each for each in model.graph.node[0].attribute if each.name == key)


def put(key: str, value: str) -> Change:
    def change(model: ModelProto) -> None:
        attribute = text(model, key)
        if key in ("template", "tile"):
            attribute.strings[0] = value.encode()
        else:
            attribute.s = value.encode()

    return change


def body(model: ModelProto, op: str) -> NodeProto:
    return next(node for node in model.functions[0].node if node.op_type == op)


def change_body(model: ModelProto) -> None:
    body(model, "Tanh").op_type = "Relu"


def change_pads(model: ModelProto) -> None:
    pads = next(each for each in body(model, "Conv").attribute if each.name == "pads")
    pads.ints[:] = [2, 0, 0, 2]


def drop_template(model: ModelProto) -> None:
    model.graph.node[0].attribute.remove(text(model, "template"))


def add_template(model: ModelProto) -> None:
    text(model, "template").strings.append(b"direct")


TAMPERED: dict[str, tuple[Change, str]] = {
    "an unknown template": (put("template", "no_such"), "not the one that its name says"),
    "an impossible tile": (put("tile", "T=0,nv=9,mr=99,group=7"), "not the one that its name says"),
    "another layout": (put("layout", "nchw4c"), "not the one that its name says"),
    "another operator in the body": (change_body, "not the one that its name says"),
    "other attributes in the body": (change_pads, "not the one that its name says"),
    "no template": (
        lambda m: m.graph.node[0].attribute.remove(text(m, "template")),
        "no attribute",
    ),
    "a template more": (
        lambda m: text(m, "template").strings.append(b"direct"),
        "differ in length",
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_region_that_was_tampered_with_is_left(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiled(chain())
    change, reason = TAMPERED[what]
    change(model)
    check_left(model, reason, caplog)


FORGED: dict[str, tuple[Callable[[Tiling], Tiling], str]] = {
    "an unknown template": (
        lambda t: replace(t, template=("no_such",)),
        "there is no template 'no_such'",
    ),
    "a template that can't": (lambda t: replace(t, template=("depthwise",)), "depthwise"),
    "a tile that is none": (lambda t: replace(t, tile=("huge",)), "'huge' is no tile"),
    "a tile of another template": (lambda t: replace(t, tile=("th=2,tw=5",)), "th=2,tw=5"),
    "an impossible tile": (lambda t: replace(t, tile=("T=0,nv=9,mr=99,group=7",)), "T=0,nv=9"),
    "a huge tile": (lambda t: replace(t, tile=("T=999999999,nv=1,mr=1,group=1",)), "T=999999999"),
    "no tile": (lambda t: replace(t, tile=("",)), "winograd_f43 : "),
    "the layout of another vector": (
        lambda t: replace(t, layout="nchw4c"),
        "its layout is nchw4c, not",
    ),
    "templates for more layers": (
        lambda t: replace(t, template=t.template * 2, tile=t.tile * 2),
        "2 templates for 1 convolution",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_whoever_makes_names_that_fit_gets_no_further(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiled(chain())
    edit, reason = FORGED[what]
    for call in model.graph.node:
        if call.domain == "ort_optim":
            say(call, edit(said_by(call)))
    check_left(forged(model), reason, caplog)


def said_by(call: NodeProto) -> Tiling:
    found = {each.name: each for each in call.attribute}
    return Tiling(
        tuple(each.decode() for each in found["template"].strings),
        tuple(each.decode() for each in found["tile"].strings),
        found["layout"].s.decode(),
        found["target"].s.decode(),
    )


def say(call: NodeProto, tiling: Tiling) -> None:
    found = {each.name: each for each in call.attribute}
    found["template"].strings[:] = [each.encode() for each in tiling.template]
    found["tile"].strings[:] = [each.encode() for each in tiling.tile]
    found["layout"].s = tiling.layout.encode()
    found["target"].s = tiling.target.encode()


@pytest.mark.parametrize("change", [change_body, change_pads])
def test_a_body_with_the_name_that_fits_is_a_region_like_any_other(change: Change) -> None:
    model = tiled(chain())
    change(model)
    model = forged(model)
    session = opened(model)
    assert_close(session.run(None, FEEDS), plain(model, FEEDS))
    assert stats(session).runs == 2


def test_a_weight_of_more_bytes_than_there_are_is_refused_as_ort_does_it() -> None:
    model = tiled(chain())
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            tensor.dims[0] = 1 << 40
    made = forged(model)
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        plain(made, FEEDS)
    with pytest.raises(type(theirs.value)):
        opened(made)


def test_calls_in_subgraphs_and_functions_are_left(caplog: pytest.LogCaptureFixture) -> None:
    model = tiled(chain())
    inner = NodeProto()
    inner.CopyFrom(model.graph.node[0])
    inner.output[0] = "inner"
    info = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branch = helper.make_graph([inner], "b", [], [info])
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    model.graph.node.insert(
        0, helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch)
    )
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    check_left(model, "it is in a subgraph", caplog)


def test_types_that_are_stated_wrongly_never_give_a_wrong_result() -> None:
    model = tiled(chain())
    for info in model.graph.value_info:
        for dim in info.type.tensor_type.shape.dim[2:]:
            dim.dim_value = 5
    session = opened(model)
    assert_close(session.run(None, FEEDS), plain(model, FEEDS))


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_models_run_as_they_do_without_us_or_not_at_all(
    seed: int, shared_cache: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.runtime.tamper", str(seed), "250"],
        env=environment(XDG_CACHE_HOME=str(shared_cache)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes = ast.literal_eval(done.stdout.splitlines()[-1])
    assert sum(outcomes.values()) == 250
    assert min(outcomes[each] for each in ("ran", "left", "refused")) >= 25
