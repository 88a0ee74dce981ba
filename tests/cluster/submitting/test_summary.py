"""The summary: gains come from the jobs' own reports, and text from outside stays text."""

import re
import time
from dataclasses import replace

import pytest

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.states import State
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.cluster.submitting.summary import (
    headline,
    rows_of,
    seconds_text,
    to_html,
    to_markdown,
    write_summary,
)
from ort_optim.pipeline import optimize
from ort_optim.report.model import Tiling


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "state", create=True) as opened:
        yield opened


def ended(journal: Journal, job: Job, state: State, cause: str = "") -> None:
    journal.submit([job], {job.id: "ann"}, {"ann": "d"})
    journal.move(job.id, State.RUNNING, placements=(Placement("n1", 1, 0),), attempt=1)
    journal.move(job.id, state, cause)


def test_the_gain_is_that_of_the_job_s_report(journal, own_models, tmp_path):
    job = Job("kws", model=own_models / "tones_kws.onnx", output=tmp_path / "o.onnx")
    folder = journal.folder / "jobs" / "kws"
    folder.mkdir(parents=True)
    found = optimize(job.model, job.output, threads=1)
    report = replace(found, decision=replace(found.decision, kept=True), tiling=Tiling())
    (folder / "report.json").write_text(report.to_json())
    ended(journal, job, State.DONE)
    (row,) = rows_of(journal)
    assert row.before_bytes == job.model.stat().st_size
    assert row.after_bytes == job.output.stat().st_size
    assert row.before_ms == report.timing.median_original_ms
    assert row.gain == pytest.approx(row.before_ms / row.after_ms)
    assert "1 model timed" in headline([row])
    assert f"{row.gain:.2f}x" in to_markdown([row])

    timing = replace(report.timing, median_original_ms=3.0, median_result_ms=1.0)
    tiled = replace(report, tiling=Tiling(kept=True, timing=timing))
    (folder / "report.json").write_text(tiled.to_json())
    (row,) = rows_of(journal)
    assert row.gain == pytest.approx(3.0)  # with the library, as users will run it


def test_jobs_without_a_report_have_their_cause_and_no_gain(journal):
    ended(journal, Job("bad", command=("x",)), State.FAILED, "exit 1")
    (row,) = rows_of(journal)
    assert (row.gain, row.note) == (None, "exit 1")
    assert headline([row]) == "1 job: 1 failed"


def test_what_still_waits_has_waited_until_now(tmp_path):
    with Journal.open(tmp_path / "s", create=True, clock=lambda: time.time() - 3600) as journal:
        journal.submit([Job("x", command=("true",))], {"x": "ann"}, {"ann": "d"})
        (row,) = rows_of(journal)
    assert "1 h 0 min" in row.cells()


def test_a_damaged_report_is_told_and_stops_nothing(journal, tmp_path):
    job = Job("m", model=tmp_path / "m", output=tmp_path / "o")
    folder = journal.folder / "jobs" / "m"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text("{")
    ended(journal, job, State.DONE)
    assert "can't be read" in rows_of(journal)[0].note


def test_what_jobs_say_can_not_change_the_page(journal):
    evil = "<script>alert(1)</script> | `x` **b**"
    ended(journal, Job("x", command=("x",)), State.FAILED, evil)
    rows = rows_of(journal)
    assert "<script>" not in to_html(rows)
    line = to_markdown(rows).splitlines()[-1]
    assert "<script>" not in line
    assert len(re.findall(r"(?<!\\)\|", line)) == 11


def test_both_kinds_are_written_whole(journal, tmp_path):
    ended(journal, Job("x", command=("x",)), State.DONE)
    for name in ("s.md", "s.html"):
        write_summary(rows_of(journal), tmp_path / name)
        assert "1 job: 1 done" in (tmp_path / name).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.html", "s.md", "state"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (7500, "2 h 5 min")],
)
def test_times_are_short(seconds, text):
    assert seconds_text(seconds) == text
