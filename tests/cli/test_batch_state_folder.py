"""Which state folder a submission means: the same file always goes on with its own batch."""

from pathlib import Path

import pytest

from ort_optim.cli.batch.state_folder import remember, state_of
from ort_optim.cluster.jobs import Job, JobFile
from ort_optim.cluster.submitting.journal import Journal


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home-state"))


def file_with(path: Path, *outputs: Path) -> JobFile:
    jobs = [
        Job(f"j{index}", model=Path("/m.onnx"), output=output)
        for index, output in enumerate(outputs)
    ]
    return JobFile(path, tuple(jobs) or (Job("x", command=("true",)),))


def test_it_is_where_all_outputs_go_else_beside_the_file(tmp_path):
    jobs = tmp_path / "jobs.yaml"
    a, b = tmp_path / "out/a.onnx", tmp_path / "out/more/b.onnx"
    assert state_of(file_with(jobs, a, b)) == tmp_path / "out" / "jobs.batch"
    assert state_of(file_with(jobs)) == tmp_path / "jobs.batch"


def test_it_is_never_in_the_root_of_the_file_system(tmp_path):
    jobs = tmp_path / "jobs.yaml"
    far_apart = file_with(jobs, Path("/a/a.onnx"), Path("/b/b.onnx"))
    assert state_of(far_apart) == tmp_path / "jobs.batch"


def test_a_file_whose_outputs_move_goes_on_with_its_batch(tmp_path, monkeypatch):
    jobs = tmp_path / "jobs.yaml"
    before = file_with(jobs, tmp_path / "out/a.onnx")
    state = state_of(before)
    after = file_with(jobs, tmp_path / "out/a.onnx", tmp_path / "elsewhere/b.onnx")
    assert state_of(after) != state  # nothing was submitted yet
    Journal.open(state, create=True).close()
    remember(state, before)
    assert state_of(after) == state
    monkeypatch.chdir(tmp_path)
    assert state_of(file_with(Path("jobs.yaml"), tmp_path / "c.onnx")) == state
    other = file_with(tmp_path / "other.yaml", tmp_path / "out/a.onnx")
    assert state_of(other) == tmp_path / "out" / "other.batch"


def test_a_batch_that_was_removed_is_begun_anew_where_the_outputs_go(tmp_path):
    file = file_with(tmp_path / "jobs.yaml", tmp_path / "new/a.onnx")
    remember(tmp_path / "gone.batch", file)
    assert state_of(file) == tmp_path / "new" / "jobs.batch"
