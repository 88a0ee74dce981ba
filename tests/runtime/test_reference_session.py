"""Reference sessions: what they are given, and what goes wrong in a region."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper

from ort_optim.errors import InputError, OrtOptimError
from ort_optim.graph.regions import DOMAIN
from ort_optim.hardware import load_target
from ort_optim.runtime import reference_regions
from ort_optim.runtime.reference import ReferenceSession
from ort_optim.runtime.session import CPU, stats
from tests.compiler.regions import Net
from tests.graph.regions.harness import forged
from tests.runtime.tiled import preferring, tiled
from tests.toolbox import environment, save_with_data

Array = NDArray[np.float32]
TARGET = load_target("x86-64-v4")


def network(seed: int = 0) -> ModelProto:
    """One region: a convolution of x0, to which x1 is added."""
    net = Net(seed)
    x, other = net.input(None, 4, None, None), net.input(None, 8, None, None)
    y = net.add("Relu", net.add("Add", net.conv(x, 4, 8, 3), other))
    return net.model(y)


def made(model: ModelProto) -> ModelProto:
    return tiled(model, TARGET, preferring(TARGET, "winograd_f23")).model


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def feeds(size: int = 6, other: int | None = None) -> dict[str, Array]:
    """Inputs of `network`, which fit where the two sizes are equal."""
    other = size if other is None else other
    return {"x0": random(1, 4, size, size), "x1": random(1, 8, other, other, seed=1)}


def in_onnx_runtime(model: ModelProto, given: dict[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[CPU])
    found: Array = session.run(None, given)[0]
    return found


def assert_right(session: ReferenceSession, model: ModelProto, size: int = 6) -> None:
    wanted = in_onnx_runtime(model, feeds(size))
    np.testing.assert_allclose(session.run(None, feeds(size))[0], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["path", "text", "bytes", "model"])
def test_a_model_is_given_in_any_form(form: str, tmp_path: Path) -> None:
    model, path = made(network()), tmp_path / "model.onnx"
    before = model.SerializeToString(deterministic=True)
    onnx.save(model, path)
    forms = {"path": path, "text": str(path), "bytes": path.read_bytes(), "model": model}
    assert_right(ReferenceSession(forms[form]), model)
    assert model.SerializeToString(deterministic=True) == before


def test_weights_may_be_external(tmp_path: Path) -> None:
    model, path = made(network()), tmp_path / "model.onnx"
    save_with_data(model, path, location="weights")
    assert_right(ReferenceSession(path), model)


def test_a_model_without_regions_is_run_as_it_is() -> None:
    session = ReferenceSession(network())
    assert not stats(session).left
    assert_right(session, network())


def test_what_can_not_be_read_is_said(tmp_path: Path) -> None:
    for model in (tmp_path / "none.onnx", b"no model"):
        with pytest.raises(InputError):
            ReferenceSession(model)


def test_options_are_those_of_one_model() -> None:
    options = onnxruntime.SessionOptions()
    ReferenceSession(made(network()), options)
    with pytest.raises(InputError, match="another model"):
        ReferenceSession(made(network(1)), options)


def test_the_regions_are_computed_in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    session = ReferenceSession(made(network()))
    monkeypatch.setattr(
        reference_regions, "run_layers", lambda *_: [np.full((1, 8, 6, 6), 3, np.float32)]
    )
    assert (session.run(None, feeds())[0] == 3).all()


def test_without_the_extra_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    with pytest.raises(InputError, match=r"ort_optim\[reference\]"):
        ReferenceSession(made(network()))


def attribute(name: str, value: object) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        for node in model.graph.node:
            for each in list(node.attribute):
                if each.name == name:
                    node.attribute.remove(each)
            node.attribute.append(helper.make_attribute(name, value))

    return change


def other_operator(model: ModelProto) -> None:
    model.functions[0].node[-1].op_type = "Sin"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (attribute("template", ["magic"]), "no template 'magic'"),
        (attribute("template", ["pointwise"]), "not 1x1"),
        (attribute("tile", ["T=0"]), "tile sizes"),
        (attribute("tile", ["T"]), "no tile"),
        (attribute("tile", ["T=1", "T=1"]), "differ in length"),
        (attribute("layout", "nchw7c"), "nchw7c"),
        (other_operator, "no code for Sin"),
    ],
)
def test_a_region_that_can_not_be_is_left_to_onnx_runtime(
    change: Callable[[ModelProto], None], reason: str
) -> None:
    changed = made(network())
    change(changed)
    if reason != "differ in length":
        changed = forged(changed)
    session = ReferenceSession(changed)
    (found,) = stats(session).left.values()
    assert reason in found
    assert_right(session, changed)


def test_a_body_that_is_not_its_names_is_left_to_onnx_runtime() -> None:
    model = made(network())
    model.functions[0].node[-1].op_type = "Sigmoid"
    session = ReferenceSession(model)
    assert "its name says" in "".join(stats(session).left.values())
    assert_right(session, model)


def test_sizes_that_do_not_fit_are_an_error_and_nothing_else() -> None:
    model = made(network())
    session = ReferenceSession(model)
    for _ in range(2):
        with pytest.raises(OrtOptimError, match=r"region R_\w+ with inputs .* not the same"):
            session.run(None, feeds(6, 5))
        assert_right(session, model)


def test_an_interrupt_in_a_region_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> list[Array]:
        raise KeyboardInterrupt

    model = made(network())
    session = ReferenceSession(model)
    monkeypatch.setattr(reference_regions, "run_layers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.run(None, feeds())
    monkeypatch.undo()
    assert_right(session, model)


def test_errors_come_through_other_ways_to_run() -> None:
    session = ReferenceSession(made(network()))
    binding = session.io_binding()
    for name, value in feeds(6, 5).items():
        binding.bind_cpu_input(name, value)
    binding.bind_output(session.get_outputs()[0].name)
    with pytest.raises(OrtOptimError):
        session.run_with_iobinding(binding)
    values = {n: onnxruntime.OrtValue.ortvalue_from_numpy(v) for n, v in feeds(6, 5).items()}
    with pytest.raises(OrtOptimError):
        session.run_with_ort_values(None, values)
    with pytest.raises(InputError):
        session.run_async(None, feeds(), print, None)


def test_what_goes_wrong_at_creation_leaves_nothing_behind() -> None:
    model = made(network())
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(Exception, match="nowhere"):
        ReferenceSession(model)
    assert_right(ReferenceSession(made(network())), made(network()))


def test_sessions_that_share_a_body_keep_their_weights() -> None:
    models = [made(network(seed)) for seed in range(3)]
    names = {each.name for model in models for each in model.functions if each.domain == DOMAIN}
    assert len(names) == 1
    sessions = [ReferenceSession(model) for model in models]
    for session, model in zip(sessions, models, strict=True):
        assert_right(session, model)


def test_many_threads_and_sessions() -> None:
    model = made(network())
    sessions = [ReferenceSession(model) for _ in range(2)]
    with ThreadPoolExecutor(6) as pool:
        jobs = []
        for i in range(24):
            if i % 3:
                jobs.append(pool.submit(assert_right, sessions[i % 2], model, 4 + i % 5))
            else:
                jobs.append(pool.submit(expect_error, sessions[i % 2]))
        for job in jobs:
            job.result()


def expect_error(session: ReferenceSession) -> None:
    with pytest.raises(OrtOptimError):
        session.run(None, feeds(6, 3))


def test_sessions_live_on_while_others_come_and_go() -> None:
    model = made(network())
    first = ReferenceSession(model)
    for inputs in range(2, 12):
        net = Net()
        y = net.conv(net.input(None, 4, None, None), 4, 4, 3)
        for _ in range(inputs):
            y = net.conv(y, 4, 4, 3, bias=bool(inputs % 2))
        ReferenceSession(made(net.model(y))).run(None, {"x0": random(1, 4, 5, 5)})
    assert_right(first, model)


def test_importing_the_library_does_not_change_how_children_parse() -> None:
    code = (
        "import os; from ort_optim.runtime import reference; before = dict(os.environ); "
        "reference._extensions(); assert dict(os.environ) == before"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=60)
