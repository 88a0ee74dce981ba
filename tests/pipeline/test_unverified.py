"""Models that can't be verified, and workers that die."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import psutil
import pytest

from ort_optim import pipeline
from ort_optim.engine import Engine, client
from ort_optim.errors import InputError, VerificationError
from ort_optim.report import Report
from tests.pipeline.models import Optimize, custom_model, floats, loaded, passed, weighty
from tests.toolbox import assert_same_outputs, ops


class TestCustomOperators:
    def test_copied_with_a_warning(self, tmp_path: Path, optimize: Optimize) -> None:
        report = optimize(custom_model())
        assert report.verification.status == "unverified"
        assert "Frobnicate" in report.verification.reason
        assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()
        assert any("copied" in warning for warning in report.warnings)

    def test_rewritten_and_marked_when_asked(self, tmp_path: Path, optimize: Optimize) -> None:
        report = optimize(custom_model(), unverified=True)
        assert report.decision.kept
        assert report.verification.status == "unverified"
        result = loaded(tmp_path / "out.onnx")
        assert ops(tmp_path / "out.onnx") == ["Frobnicate", "Relu"]
        assert any(p.key == pipeline.UNVERIFIED_MARK for p in result.metadata_props)
        optimize(tmp_path / "out.onnx", tmp_path / "again.onnx", unverified=True)
        again = loaded(tmp_path / "again.onnx")
        assert sum(p.key == pipeline.UNVERIFIED_MARK for p in again.metadata_props) == 1

    def test_an_error_where_verification_is_required(
        self, tmp_path: Path, optimize: Optimize
    ) -> None:
        (tmp_path / "out.onnx").write_bytes(b"old")
        with pytest.raises(VerificationError, match="Frobnicate"):
            optimize(custom_model(), require_verify=True)
        assert (tmp_path / "out.onnx").read_bytes() == b"old"

    def test_both_wishes_at_once_are_refused(self, optimize: Optimize) -> None:
        with pytest.raises(InputError, match="exclude"):
            optimize(custom_model(), unverified=True, require_verify=True)


WORKER_THAT = """
import os, sys, time
from ort_optim.engine import worker

real = worker.Sessions.{verb}

def {verb}(self, *arguments):
    {act}
    return real(self, *arguments)

worker.Sessions.{verb} = {verb}
worker.main()
"""


class TestWorker:
    """A worker process that dies or hangs takes nothing else with it."""

    @pytest.fixture
    def with_worker(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[str, str], None]:
        """Lets each worker do `act` before `verb`."""

        def install(verb: str, act: str) -> None:
            shim = tmp_path / "shim"
            (shim / "ort_optim_shim").mkdir(parents=True)
            script = shim / "worker.py"
            script.write_text(WORKER_THAT.format(verb=verb, act=act))
            started = client.subprocess.Popen

            def popen(command: list[str], **options: Any) -> Any:
                assert command[-2:] == ["-m", "ort_optim.engine.worker"]
                return started([command[0], str(script)], **options)

            monkeypatch.setattr(client.subprocess, "Popen", popen)

        return install

    def call(self, tmp_path: Path, **options: Any) -> Report:
        onnx.save(weighty(), tmp_path / "in.onnx")
        return pipeline.optimize(tmp_path / "in.onnx", tmp_path / "out.onnx", **options)

    @pytest.mark.parametrize(
        ("verb", "act", "told"),
        [
            ("open", "os.abort()", "SIGABRT"),
            ("run", "os.kill(os.getpid(), 11)", "SIGSEGV"),
            ("run", "os._exit(3)", "exit code 3"),
            ("open", "time.sleep(60)", "within 2 s"),
            ("run", "time.sleep(60)", "within 2 s"),
        ],
    )
    def test_while_the_reference_is_opened_or_run(
        self,
        tmp_path: Path,
        with_worker: Callable[[str, str], None],
        verb: str,
        act: str,
        told: str,
    ) -> None:
        with_worker(verb, act)
        report = self.call(tmp_path, timeout_s=2.0)
        assert report.verification.status == "unverified"
        assert told in report.verification.reason
        assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()

    def test_while_models_are_timed(
        self, tmp_path: Path, with_worker: Callable[[str, str], None]
    ) -> None:
        with_worker("time", "os.abort()")
        report = self.call(tmp_path)
        passed(report)
        assert report.timing.verdict == "not timed"
        assert report.decision.kept

    def test_on_the_rewritten_model_only(
        self, tmp_path: Path, engine: Engine, with_worker: Callable[[str, str], None]
    ) -> None:
        """The rewrite that brings the crash is found, as any other fault is."""
        with_worker("open", "os.abort() if arguments[0].proto.count(b'Identity') == 0 else None")
        report = self.call(tmp_path, timing=False)
        assert [c.pass_name for c in report.verification.culprits] == ["identity"]
        assert "Identity" in ops(tmp_path / "out.onnx")
        feeds = {"x": floats(600)}
        assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", feeds)

    def test_no_worker_outlives_the_run(self, tmp_path: Path) -> None:
        before = {child.pid for child in psutil.Process().children()}
        self.call(tmp_path, timing=False)
        assert {child.pid for child in psutil.Process().children()} <= before
