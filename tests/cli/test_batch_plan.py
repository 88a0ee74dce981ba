"""`batch plan`: a table, a file, JSON, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ort_optim.cli import main
from ort_optim.cluster.plan import plan_from_json
from tests.toolbox import run_program, snapshot

JOBS = """
version: 1
defaults: {resources: {cpus: 2, memory: 2GiB}}
jobs:
  - {id: whole, command: [x], resources: {gpus: 16}, duration: 10min}
  - {id: half, command: [x], resources: {gpus: 0.5}, duration: 90s}
  - {id: then, command: [x], after: [half]}
"""
CLUSTER = """
version: 1
servers:
  - {name: "g[1-3]", class: auto, cpus: 64, memory: 256GiB,
     gpus: {model: A100, count: 8, memory: 80GiB}}
  - {name: cpu, class: two, cpus: 32, memory: 128GiB}
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JOBS and CLUSTER in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("jobs.yaml").write_text(JOBS)
    Path("cluster.yaml").write_text(CLUSTER)


def call(*options: str) -> int:
    return main(["batch", "plan", "jobs.yaml", "--cluster", "cluster.yaml", *options])


def test_the_table_says_where_when_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert call() == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = {line.split()[0]: " ".join(line.split()) for line in out.splitlines() if line.strip()}
    assert "16 GPUs at 8 a server: 2 whole" in rows["whole"]
    assert "0 600" in rows["whole"]
    assert "0: 0.5" in rows["half"]
    assert rows["then"].startswith("then 90 150 cpu 2 2.00 GiB")
    assert "3 jobs planned, 0 refused; all done after 600 s" in out
    assert "2 of 3 auto servers are class one" in out


def test_the_file_and_json_hold_the_whole_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("-o", "plan.json", "--json") == 0
    text = capsys.readouterr().out
    assert Path("plan.json").read_text() == text
    made = plan_from_json(text)
    assert [each.job for each in made.planned] == ["whole", "half", "then"]
    assert json.loads(text)["makespan_s"] == 600


def test_what_can_not_be_placed_is_in_the_plan_and_makes_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("jobs.yaml").write_text(JOBS.replace("gpus: 16", "gpus: 32"))
    assert call("-o", "plan.json") == 2
    out, err = capsys.readouterr()
    reason = "32 GPUs at 8 a server: 4 whole: class one has only 3 with what each must have"
    assert err == f"ort_optim: 1 of 3 jobs can't be placed: whole: {reason}\n"
    assert reason in out
    made = plan_from_json(Path("plan.json").read_text())
    assert [each.job for each in made.planned] == ["half", "then"]
    assert [(each.job, each.reason) for each in made.refused] == [("whole", reason)]


def test_backfill_is_used_only_if_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    Path("cluster.yaml").write_text(CLUSTER.replace("auto", "one"))
    assert call() == 2
    assert "class one has room for it with --backfill" in capsys.readouterr().err
    assert call("--backfill") == 0
    assert "fragment, backfill on class one" in capsys.readouterr().out


def test_ageing_and_tries_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--ageing", "2h", "--tries", "5") == 0
    assert call("--ageing", "5m") == 2
    assert call("--tries", "-1") == 2
    err = capsys.readouterr().err
    assert "--ageing: '5m' is no duration" in err
    assert "--tries: -1: must be a whole number up to" in err


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("jobs.yaml", JOBS.replace("gpus: 16", "gpu: 16"), "did you mean gpus?"),
        ("jobs.yaml", JOBS + "  - {id: half, command: [x]}", "id 'half' is taken"),
        ("jobs.yaml", JOBS.replace("[half]", "[then]"), "cycle in `after`: then <- then"),
        ("jobs.yaml", JOBS.replace("cpus: 2", "cpus: -2"), "must be from 0 to"),
        ("jobs.yaml", JOBS + "  - {id: m, model: none.onnx, output: o}", "there is no such file"),
        ("cluster.yaml", "version: 1\nservers: [", "not YAML"),
        ("cluster.yaml", "\0", "not YAML"),
        ("cluster.yaml", CLUSTER.replace("version: 1", "version: 7"), "reads version 1"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    name: str, text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_text(text)
    before = snapshot(tmp_path)
    assert call("-o", "plan.json") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ort_optim: ")
    assert err.count("\n") == 1
    assert told in err
    assert name in err
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("missing", ["jobs.yaml", "cluster.yaml"])
def test_a_file_that_is_missing_is_named(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(missing).unlink()
    assert call() == 2
    assert f"{missing}: can't be read" in capsys.readouterr().err


def test_a_plan_that_can_not_be_written_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("-o", "none/plan.json") == 2
    assert "none/plan.json: can't be written" in capsys.readouterr().err


def test_a_long_plan_is_cut_in_the_table_and_whole_in_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = [f"  - {{id: j{i}, command: [x]}}" for i in range(70)]
    Path("jobs.yaml").write_text("version: 1\njobs:\n" + "\n".join(jobs))
    assert call() == 0
    out = capsys.readouterr().out
    assert "... and 20 more" in out
    assert call("--json") == 0
    assert len(plan_from_json(capsys.readouterr().out).planned) == 70


def test_it_is_a_command_of_the_program_that_needs_no_ray(tmp_path: Path) -> None:
    run = run_program("batch", "plan", "jobs.yaml", "--cluster", "cluster.yaml", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert "3 jobs planned" in run.stdout
