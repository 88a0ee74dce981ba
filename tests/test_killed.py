"""Killed at any instant: OUT is the old file or the new one, and the next run cleans up."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from ort_optim.cli import main
from ort_optim.engine import Engine
from ort_optim.graph.leftovers import scratch_folder, temporary_beside
from tests.passes.harness import model_of
from tests.toolbox import assert_same_outputs, environment, ops, save_with_data

SIZE = 50_000
FEEDS = {"x": np.linspace(-1, 1, SIZE, dtype=np.float32)}

KILLED_AT_STEP = """
import os, signal, sys
from ort_optim.cli import main

def dying(real, what):
    def call(*arguments, **options):
        global left
        path = str(arguments[0])
        if what not in path:
            return real(*arguments, **options)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return real(*arguments, **options)
    return call

left = int(sys.argv[1])
os.fsync = dying(os.fsync, "")
os.replace = dying(os.replace, "")
os.rename = dying(os.rename, "")
os.unlink = dying(os.unlink, "")
main(sys.argv[2:])
"""


def model(offset: float = 0.0) -> onnx.ModelProto:
    weights = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32) + offset
    return model_of(
        f"g (float[{SIZE}] x) => (float[{SIZE}] y) {{ i = Identity(x)\n y = Add(i, w) }}",
        weights={"w": np.float32(weights)},
    )


class Place:
    """A folder with in.onnx, what out.onnx may lead to before and after, and their judge."""

    def __init__(self, folder: Path, engine: Engine, *, external: bool, in_place: bool) -> None:
        self.folder, self.engine = folder, engine
        self.source = folder / "in.onnx"
        self.out = self.source if in_place else folder / "out.onnx"
        self.reference = folder / "reference" / "in.onnx"
        self.reference.parent.mkdir()
        self.old = folder / "reference" / "old.onnx"
        onnx.save(model(), self.reference)
        onnx.save(model(5.0), self.old)
        if external:
            save_with_data(model(), self.source, location="weights.bin")
        else:
            onnx.save(model(), self.source)
        if not in_place:
            if external:
                onnx.save(model(5.0), folder / "before.onnx")
                save_with_data(model(5.0), folder / "before.onnx", location="before.bin")
                assert main(["optimize", str(folder / "before.onnx"), str(self.out), *QUIET]) == 0
            else:
                onnx.save(model(5.0), self.out)

    def check_out(self) -> None:
        """OUT loads, and computes what the old or the new model does."""
        try:
            assert_same_outputs(self.engine, self.reference, self.out, FEEDS)
        except AssertionError:
            assert_same_outputs(self.engine, self.old, self.out, FEEDS)

    def leftovers(self) -> list[str]:
        """Temporary files, and data files of OUT that it does not refer to."""
        raw = self.out.read_bytes()
        return [
            path.name
            for path in self.folder.iterdir()
            if path.name.endswith(".tmp")
            or (
                re.fullmatch(r".*\.[0-9a-f]{64}\.data", path.name) and path.name.encode() not in raw
            )
        ]

    def finish(self) -> None:
        """The next two runs succeed and leave nothing behind."""
        for _ in range(2):  # data that the first run replaces goes with the second
            assert main(["optimize", str(self.source), str(self.out), *QUIET]) == 0
        assert_same_outputs(self.engine, self.reference, self.out, FEEDS)
        assert "Identity" not in ops(self.out)
        assert self.leftovers() == []


QUIET = ("--quiet", "--no-timing")


@pytest.fixture(params=["inline", "external", "inline-in-place", "external-in-place"])
def place(request: pytest.FixtureRequest, tmp_path: Path, engine: Engine) -> Place:
    return Place(
        tmp_path,
        engine,
        external="external" in request.param,
        in_place="in-place" in request.param,
    )


def test_before_and_between_all_steps_of_writing(place: Place) -> None:
    """Killed before the 1st, 2nd, ... flush, rename or removal, until there is none left."""
    for step in range(20):
        done = subprocess.run(
            [
                *(sys.executable, "-c", KILLED_AT_STEP, str(step)),
                *("optimize", str(place.source), str(place.out), *QUIET),
            ],
            env=environment(),
            check=False,
            timeout=60,
        )
        place.check_out()
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert 1 < step < 19
    place.finish()


def test_at_random_instants(tmp_path: Path, engine: Engine) -> None:
    place = Place(tmp_path, engine, external=True, in_place=True)
    rng = random.Random(0)
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-m", "ort_optim", "optimize", place.source, place.out, *QUIET],
            env=environment(),
        )
        time.sleep(rng.uniform(0.3, 1.2))
        workers = psutil.Process(process.pid).children()
        process.kill()
        process.wait()
        place.check_out()
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive, "the worker outlives the program"
    place.finish()


def test_scratch_folders_of_killed_runs_go_and_those_of_living_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = tmp_path / f"ort_optim-{2**22 - 1}-abc"
    dead.mkdir()
    (dead / "weights").write_bytes(b"much")
    stranger = tmp_path / "ort_optim-notes"
    stranger.mkdir()
    with scratch_folder() as living:
        assert not dead.exists()
        with scratch_folder():
            assert living.is_dir()
    assert list(tmp_path.iterdir()) == [stranger]


def test_two_writers_never_share_a_temporary_name(tmp_path: Path) -> None:
    assert temporary_beside(tmp_path / "a") != temporary_beside(tmp_path / "a")
