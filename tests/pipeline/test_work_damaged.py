"""`work=DIR` that is damaged, forged or full: told, and OUT is what it would be without it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from ort_optim.checkpoints import steps as steps_module
from ort_optim.errors import InputError
from tests.pipeline.models import Optimize, Run, weighty


def test_a_kept_model_that_names_no_tensor_of_the_original_is_damaged(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ort_optim.engine.spill.HEAVY_MODEL_BYTES", 1000)
    monkeypatch.setattr("ort_optim.engine.spill.HEAVY_TENSOR_BYTES", 100)
    out, _ = run(weighty())
    (path,) = (tmp_path / "work").glob("*.onnx")
    model = onnx.load(path, load_external_data=False)
    (named,) = (t for t in model.graph.initializer if t.external_data)
    named.external_data[0].value = "nobody"
    forged = steps_module.WorkFolder(tmp_path / "work").put(model.SerializeToString(), ".onnx")
    record = json.loads((tmp_path / "work" / "rewrite.json").read_text())
    record["value"]["model"] = forged
    write_record(tmp_path / "work" / "rewrite.json", record)
    again, report = run(weighty())
    assert again == out
    assert report.taken_over == ("inputs",)
    assert any("no tensor 'nobody'" in warning for warning in report.warnings)


def damages(path: Path) -> list[Callable[[], object]]:
    raw = path.read_bytes()
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 0x10
    return [
        lambda: path.write_bytes(flipped),
        lambda: path.write_bytes(raw[: len(raw) // 2]),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"[" * 100_000),
        lambda: path.unlink(),
    ]


def test_damage_is_noticed_and_the_step_done_again(tmp_path: Path, run: Run) -> None:
    work, good = tmp_path / "work", tmp_path / "good"
    out, _ = run(weighty())
    assert run(weighty())[1].taken_over == ("inputs", "rewrite")
    work.rename(good)
    names = [path.name for path in good.iterdir() if path.suffix in (".json", ".onnx", ".npz")]
    assert len(names) == 5
    for name in names:
        for number in range(5):
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(good, work)
            damages(work / name)[number]()
            again, report = run(weighty())
            assert again == out
            assert report.verification.status == "passed"
            if name != "steps.json":
                assert report.taken_over != ("inputs", "rewrite")
                told = any("is done again" in warning for warning in report.warnings)
                assert told or not (good / name).name.endswith(".json") or number == 4


def write_record(path: Path, record: dict[str, Any]) -> None:
    """With a digest that fits."""
    record.pop("digest")
    path.write_text(json.dumps({**record, "digest": steps_module._digest(record)}))


FORGERIES: dict[str, Callable[[Any], object]] = {
    "another model's name": lambda value: value.update(model="0" * 64 + ".onnx"),
    "a path": lambda value: value.update(model="../../etc/passwd"),
    "a number": lambda value: value.update(model=5),
    "no verdict": lambda value: value.pop("verdict"),
    "a wrong type": lambda value: value.update(rewrites={"a": 1}),
    "a list": lambda value: value.update(culprits=[[1]]),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_record_with_a_fitting_digest_is_refused(
    tmp_path: Path, run: Run, forge: Callable[[Any], object]
) -> None:
    out, _ = run(weighty())
    path = tmp_path / "work" / "rewrite.json"
    record = json.loads(path.read_text())
    forge(record["value"])
    write_record(path, record)
    again, report = run(weighty())
    assert again == out
    assert report.taken_over == ("inputs",)
    assert any("step rewrite is done again" in warning for warning in report.warnings)


@pytest.mark.parametrize("call", range(4))
def test_on_a_full_disk_out_stays_and_one_line_is_said(
    tmp_path: Path, optimize: Optimize, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"before")
    real = steps_module.WorkFolder.write
    calls = iter(range(100))

    def full(folder: Any, name: str, content: bytes) -> None:
        if next(calls) == call:
            monkeypatch.setattr(Path, "replace", _no_room)
        real(folder, name, content)

    monkeypatch.setattr(steps_module.WorkFolder, "write", full)
    with pytest.raises(InputError, match=r"--work .* can't be written to: No space left") as said:
        optimize(weighty(), out, work=tmp_path / "work")
    monkeypatch.undo()
    assert "\n" not in str(said.value)
    assert out.read_bytes() == b"before"
    assert optimize(weighty(), out, work=tmp_path / "work").decision.kept


def _no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")
