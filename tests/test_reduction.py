"""A pass that failed in a run with a work folder: shrunk to what it fails on, later."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ort_optim import pipeline, reduction
from ort_optim.cli import main
from ort_optim.engine import Engine
from ort_optim.errors import InputError
from ort_optim.graph.view import Graph, Node
from ort_optim.passes import PASSES
from ort_optim.passes.base import Context, NodePass, Pass
from ort_optim.reduction import reduce_failure
from ort_optim.report import Report
from ort_optim.rewriter import Rewriter
from tests.pipeline.models import custom_model
from tests.test_search import CARELESS, chain_model
from tests.toolbox import LastingEngine, ops, save_with_data

Fail = Callable[..., Report]


@pytest.fixture
def fail(tmp_path: Path, lasting_engine: LastingEngine, monkeypatch: pytest.MonkeyPatch) -> Fail:
    """`optimize` with further passes first, in the work folder tmp_path/work."""

    def call(
        model: onnx.ModelProto, *extra: Pass, external: bool = False, **options: Any
    ) -> Report:
        if external:
            save_with_data(model, tmp_path / "in.onnx", location="w.bin")
        else:
            onnx.save(model, tmp_path / "in.onnx")
        known: Sequence[Pass] = (*extra, *PASSES)
        monkeypatch.setattr(pipeline, "Engine", lasting_engine.lend)
        monkeypatch.setattr(reduction, "Engine", lasting_engine.lend)
        monkeypatch.setattr(pipeline, "Rewriter", functools.partial(Rewriter, passes=known))
        return pipeline.optimize(
            *(tmp_path / "in.onnx", tmp_path / "out.onnx"),
            work=tmp_path / "work",
            timing=False,
            **options,
        )

    return call


def raising(node: Node, graph: Graph, ctx: Context) -> None:
    if node.inputs[0].inputs and node.inputs[0].inputs[0].op == "Neg":
        raise KeyError("a Neg comes before")


RAISING = NodePass("raising", frozenset({"Abs"}), raising)


def invented(node: Node, graph: Graph, ctx: Context) -> None:
    above = node.inputs[0].inputs
    if above and above[0].op == "Abs" and ctx.fuel("invented", node, "NoSuchOp"):
        graph.replace(node, "NoSuchOp", [above[0].inputs[0]])
        graph.remove(above[0])


INVENTED = NodePass("invented", frozenset({"Exp"}), invented)


def test_a_pass_that_raised(tmp_path: Path, fail: Fail) -> None:
    report = fail(chain_model(7), RAISING)
    assert any("pass left out: raising" in warning for warning in report.warnings)
    smallest = reduce_failure(tmp_path / "work", passes=(RAISING, *PASSES))
    assert smallest == tmp_path / "work" / "smallest.onnx"
    assert ops(smallest) == ["Neg", "Abs"]
    onnx.checker.check_model(smallest, full_check=True)
    text = (tmp_path / "work" / "smallest.txt").read_text()
    assert text.count("\n") == 1
    assert "pass raising raises an error on Abs, Neg (2 nodes): KeyError" in text


def test_a_rewrite_that_made_the_outputs_differ(tmp_path: Path, fail: Fail) -> None:
    fail(chain_model(7), CARELESS)
    smallest = reduce_failure(tmp_path / "work", passes=(CARELESS, *PASSES))
    assert ops(smallest) == ["Neg", "Abs"]  # an output that is an input as it is can't be
    model = onnx.load(smallest)
    assert "pass careless makes the outputs differ" in model.doc_string
    with np.load(tmp_path / "work" / "smallest.npz") as feeds:
        (name,) = feeds.files
        assert name == model.graph.input[0].name
        assert (feeds[name] > 0).any()


def test_a_rewrite_that_onnx_runtime_refuses(tmp_path: Path, fail: Fail) -> None:
    fail(chain_model(), INVENTED)
    smallest = reduce_failure(tmp_path / "work", passes=(INVENTED, *PASSES))
    assert ops(smallest) == ["Abs", "Exp"]
    assert "can't run" in onnx.load(smallest).doc_string


def test_a_pass_that_fails_only_after_others(tmp_path: Path, fail: Fail) -> None:
    """Identity hides the Neg from the pass, until another pass has taken it away."""
    model = chain_model(7)
    for node in model.graph.node:
        if node.output[0] == "v8":
            node.input[0] = "hidden"
            position = list(model.graph.node).index(node)
    model.graph.node.insert(position, onnx.helper.make_node("Identity", ["b7"], ["hidden"]))
    report = fail(model, RAISING)
    assert any("pass left out: raising" in warning for warning in report.warnings)
    smallest = reduce_failure(tmp_path / "work", passes=(RAISING, *PASSES))
    assert sorted(ops(smallest)) == ["Abs", "Identity", "Neg"]


def test_external_data_is_found_and_the_part_stands_alone(tmp_path: Path, fail: Fail) -> None:
    model = chain_model(7)
    weights = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    for node in model.graph.node:
        if node.output[0] == "b7":
            node.op_type = "Sub"
            node.input.append("w")
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    fail(model, CARELESS, external=True)
    smallest = reduce_failure(tmp_path / "work", passes=(CARELESS, *PASSES))
    (tmp_path / "w.bin").unlink()
    onnx.load(smallest)
    assert "Abs" in ops(smallest)


def test_a_later_run_without_failures_clears_the_record(tmp_path: Path, fail: Fail) -> None:
    fail(chain_model(7), RAISING)
    assert (tmp_path / "work" / "failures.json").is_file()
    fail(chain_model(6))
    with pytest.raises(InputError, match="nothing failed"):
        reduce_failure(tmp_path / "work")


def test_a_later_run_that_is_not_verified_clears_the_record(tmp_path: Path, fail: Fail) -> None:
    fail(chain_model(7), RAISING)
    reduce_failure(tmp_path / "work", passes=(RAISING, *PASSES))
    fail(custom_model())
    left = {path.name for path in (tmp_path / "work").iterdir()}
    assert not left & {"failures.json", "smallest.onnx", "smallest.txt", "smallest.npz"}


def test_a_failure_that_does_not_come_again_is_told(tmp_path: Path, fail: Fail) -> None:
    fail(chain_model(7), RAISING)
    with pytest.raises(InputError, match="raising: the failure can't be repeated"):
        reduce_failure(tmp_path / "work")


def test_a_model_that_has_changed_is_told(tmp_path: Path, fail: Fail) -> None:
    fail(chain_model(7), RAISING)
    onnx.save(chain_model(8), tmp_path / "in.onnx")
    with pytest.raises(InputError, match="has changed"):
        reduce_failure(tmp_path / "work")


def test_external_data_that_has_changed_is_told(tmp_path: Path, fail: Fail) -> None:
    model = chain_model(7)
    model.graph.node[-1].op_type = "Add"
    model.graph.node[-1].input.append("w")
    weights = np.ones((4, 8), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    fail(model, RAISING, external=True)
    (tmp_path / "w.bin").write_bytes(bytes(128))
    with pytest.raises(InputError, match=r"w\.bin has changed"):
        reduce_failure(tmp_path / "work", passes=(RAISING, *PASSES))


def test_the_reduction_shows_that_it_goes_on(
    tmp_path: Path, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever watches the run would else take it for hung."""
    fail(chain_model(7), CARELESS)
    monkeypatch.setattr(reduction, "Engine", Engine)  # one that nobody listens to yet
    progress = tmp_path / "work" / "progress"
    os.utime(progress, (0, 0))
    reduce_failure(tmp_path / "work", passes=(CARELESS, *PASSES))
    assert progress.stat().st_mtime > 0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 9}', "[" * 100_000])
def test_a_damaged_record_is_one_line(tmp_path: Path, fail: Fail, content: str) -> None:
    fail(chain_model(7), RAISING)
    (tmp_path / "work" / "failures.json").write_text(content)
    with pytest.raises(InputError, match=r"failures\.json"):
        reduce_failure(tmp_path / "work")


def test_a_taken_over_run_tells_its_failures_as_well(tmp_path: Path, fail: Fail) -> None:
    fail(chain_model(7), RAISING)
    before = json.loads((tmp_path / "work" / "failures.json").read_text())
    assert "rewrite" in fail(chain_model(7), RAISING).taken_over
    assert json.loads((tmp_path / "work" / "failures.json").read_text()) == before


def test_the_option_writes_it_at_once(
    tmp_path: Path, fail: Fail, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(chain_model(7), RAISING)
    known = (RAISING, *PASSES)
    monkeypatch.setattr(
        "ort_optim.cli.optimize.reduce_failure", functools.partial(reduce_failure, passes=known)
    )
    arguments = [str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx"), "--no-timing"]
    work = ["--work", str(tmp_path / "work"), "--reduce"]
    assert main(["optimize", *arguments, *work]) == 0
    assert "smallest.onnx: pass raising raises an error" in capsys.readouterr().out
    assert ops(tmp_path / "work" / "smallest.onnx") == ["Neg", "Abs"]


def test_a_failure_that_can_not_be_repeated_costs_no_result(
    tmp_path: Path, fail: Fail, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program's own passes do not fail."""
    fail(chain_model(7), RAISING)
    (tmp_path / "out.onnx").unlink()
    arguments = [str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx"), "--no-timing", "--quiet"]
    assert main(["optimize", *arguments, "--work", str(tmp_path / "work"), "--reduce"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "OUT is written" in line
    assert "can't be repeated" in line
    assert (tmp_path / "out.onnx").is_file()


def test_the_option_needs_the_original(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "a.onnx", "./a.onnx", "--reduce", "--work", "w"]) == 2
    assert "--reduce needs IN as it was" in capsys.readouterr().err


def test_the_option_needs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "a.onnx", "b.onnx", "--reduce"]) == 2
    assert "--work DIR" in capsys.readouterr().err
