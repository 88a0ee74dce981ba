"""`work=DIR`: a run goes on after the last step that is valid, and ends as if done in one go."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import ort_optim
from ort_optim import pipeline
from ort_optim.checkpoints import keys
from ort_optim.checkpoints import steps as steps_module
from ort_optim.errors import InputError
from ort_optim.passes import PASSES
from ort_optim.passes.base import GraphPass, Pass
from ort_optim.report import Report
from ort_optim.report.model import StageSeconds
from ort_optim.rewriter import Rewriter
from ort_optim.search import Search
from ort_optim.verify.judge import Verdict, Verifier
from tests.passes.harness import model_of
from tests.pipeline.models import Optimize, Run, old_net, weighty
from tests.test_search import CARELESS, SLOW_TAN, TAN_MODEL, Clock, chain_model
from tests.toolbox import ROOT, save_with_data

TILED = ROOT / "models" / "digits_resnet.onnx"


@pytest.fixture
def nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, a step that is done instead of taken over fails the test."""

    def forbid() -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise AssertionError("a finished step was done again")

        for owner, name in (
            *((pipeline, "find_inputs"), (pipeline, "try_tiling"), (Rewriter, "candidate")),
            *((Search, "faithful"), (Search, "as_fast"), (Search, "interleaved")),
        ):
            monkeypatch.setattr(owner, name, fail)

    return forbid


def same_report(a: Report, b: Report) -> None:
    """Equal but for how long it took and what was taken over."""
    plain = [
        replace(
            each,
            seconds=StageSeconds(),
            taken_over=(),
            passes=tuple(replace(p, seconds=0.0) for p in each.passes),
        )
        for each in (a, b)
    ]
    assert plain[0] == plain[1]


def test_all_steps_are_taken_over_and_nothing_is_done_again(
    run: Run, nothing_is_done: Callable[[], None]
) -> None:
    out, first = run(TILED, timing=True)
    nothing_is_done()
    again, second = run(TILED, timing=True)
    assert again == out
    same_report(first, second)
    assert first.taken_over == ()
    assert second.taken_over == ("inputs", "rewrite", "time", "tile")


@pytest.mark.parametrize(
    "model",
    [weighty(), old_net(9), model_of("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")],
    ids=["weights", "old", "nothing-to-do"],
)
def test_the_result_is_that_of_a_run_without_a_work_folder(
    run: Run, model: onnx.ModelProto
) -> None:
    out, plain = run(model, work=None)
    for _ in range(2):
        kept, report = run(model)
        assert kept == out
        same_report(plain, report)
    assert {"inputs", "rewrite"} <= set(report.taken_over)


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({"disable": {"tiling"}}, ("inputs", "rewrite", "time")),
        ({"timing": False}, ("inputs", "rewrite")),
        ({"threads": 1, "target": "cortex-a72"}, ("inputs", "rewrite", "time")),
        ({"rtol": 0.5}, ("inputs",)),
        ({"disable": {"identity"}}, ("inputs",)),
        ({"seed": 3}, ()),
        ({"keep_initializer_inputs": True}, ()),
    ],
    ids=str,
)
def test_an_option_leaves_the_steps_before_it_valid(
    run: Run, changes: dict[str, Any], valid: tuple[str, ...]
) -> None:
    run(weighty(), timing=True, threads=1)
    _, report = run(weighty(), **{"timing": True, "threads": 1, **changes})
    assert tuple(s for s in report.taken_over if s in valid) == valid
    assert set(report.taken_over) - set(valid) == set()


def test_another_model_or_other_external_data_is_another_run(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "in.onnx"
    save_with_data(weighty(), path, location="w.bin")
    run(path)
    assert run(path)[1].taken_over[:2] == ("inputs", "rewrite")
    raw = bytearray((tmp_path / "w.bin").read_bytes())
    raw[5] ^= 1
    (tmp_path / "w.bin").write_bytes(raw)
    assert run(path)[1].taken_over == ()


def test_other_samples_are_another_run(tmp_path: Path, run: Run) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros(600, np.float32))
    run(weighty(), data=tmp_path / "data.npz")
    assert "inputs" in run(weighty(), data=tmp_path / "data.npz")[1].taken_over
    np.savez(tmp_path / "data.npz", x=np.ones(600, np.float32))
    assert run(weighty(), data=tmp_path / "data.npz")[1].taken_over == ()


def test_another_version_of_this_package_is_another_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(weighty())
    monkeypatch.setattr(keys, "_versions", lambda: {"ort_optim": "newer"})
    assert run(weighty())[1].taken_over == ()


def test_culprits_and_failed_passes_are_told_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("no such thing")

    known: tuple[Pass, ...] = (CARELESS, GraphPass("broken", broken), *PASSES)
    monkeypatch.setattr(pipeline, "Rewriter", functools.partial(Rewriter, passes=known))
    out, first = run(chain_model(2, 9))
    again, second = run(chain_model(2, 9))
    assert again == out
    same_report(first, second)
    assert len(second.verification.culprits) == 2
    assert any("no such thing" in warning for warning in second.warnings)
    assert "rewrite" in second.taken_over


def test_a_result_that_does_not_agree_is_told_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: tuple[Pass, ...] = (CARELESS, *PASSES)
    monkeypatch.setattr(pipeline, "Rewriter", functools.partial(Rewriter, passes=known))
    out, first = run(chain_model(7), search_seconds=0.0)
    again, second = run(chain_model(7), search_seconds=0.0)
    assert again == out
    same_report(first, second)
    assert not second.decision.kept
    assert any("ended after 0 s" in warning for warning in second.warnings)
    assert second.taken_over == ("inputs", "rewrite")


def test_passes_undone_for_their_time_are_told_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, nothing_is_done: Callable[[], None]
) -> None:
    Clock(lambda found: 9.0 if "Tan" in found else 3.0).install(monkeypatch)
    known: tuple[Pass, ...] = (SLOW_TAN, *PASSES)
    monkeypatch.setattr(pipeline, "Rewriter", functools.partial(Rewriter, passes=known))
    out, first = run(model_of(TAN_MODEL), timing=True, disable={"tiling"})
    nothing_is_done()
    again, second = run(model_of(TAN_MODEL), timing=True, disable={"tiling"})
    assert again == out
    same_report(first, second)
    assert second.timing.undone_passes == ("slow-tan",)


def test_what_could_not_be_run_is_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been for want of memory."""
    real = Verifier.check
    monkeypatch.setattr(Verifier, "check", lambda *_, **__: Verdict(False, (), 0, "it died"))
    assert not run(weighty())[1].decision.kept
    monkeypatch.setattr(Verifier, "check", real)
    _, report = run(weighty())
    assert report.taken_over == ("inputs",)
    assert report.decision.kept


def test_a_supervisor_reads_what_is_done(tmp_path: Path, run: Run) -> None:
    run(weighty())
    log = json.loads((tmp_path / "work" / "steps.json").read_text())
    assert log["version"] == 1
    assert log["last_finished_step"] == "save"
    assert [each["step"] for each in log["steps"]] == ["inputs", "rewrite", "tile", "save"]
    assert not any(each["taken_over"] for each in log["steps"])
    run(weighty())
    log = json.loads((tmp_path / "work" / "steps.json").read_text())
    assert [each["step"] for each in log["steps"] if each["taken_over"]] == ["inputs", "rewrite"]


def test_each_answer_of_the_engine_is_a_sign_of_life(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[str] = []
    monkeypatch.setattr(steps_module.WorkFolder, "touch", lambda _: touched.append(""))
    run(weighty())
    assert len(touched) > 10


def test_a_model_that_can_not_be_compared_keeps_nothing(tmp_path: Path, run: Run) -> None:
    from tests.pipeline.models import custom_model

    for _ in range(2):
        _, report = run(custom_model(), unverified=True)
        assert report.taken_over == ()
        assert report.verification.status == "unverified"


def test_neither_model_may_be_a_file_of_the_folder(tmp_path: Path, optimize: Optimize) -> None:
    work = tmp_path / "work"
    work.mkdir(mode=0o700)
    onnx.save(weighty(), work / "smallest.onnx")
    with pytest.raises(InputError, match="is a file of --work"):
        optimize(work / "smallest.onnx", work=work)
    with pytest.raises(InputError, match="is a file of --work"):
        optimize(weighty(), work / "smallest.onnx", work=work)
    assert (work / "smallest.onnx").is_file()


def test_the_interface_takes_it_by_name(tmp_path: Path) -> None:
    onnx.save(weighty(), tmp_path / "in.onnx")
    arguments = (tmp_path / "in.onnx", str(tmp_path / "out.onnx"))
    ort_optim.optimize(*arguments, work=str(tmp_path / "work"), timing=False)
    assert (tmp_path / "work" / "rewrite.json").is_file()
