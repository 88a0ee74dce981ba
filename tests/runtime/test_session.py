"""What a user meets: options, sessions, and what they say of themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto

from ort_optim.errors import InputError
from ort_optim.runtime.session import InferenceSession, session_options, stats
from tests.graph.regions.harness import inlined
from tests.runtime.networks import (
    assert_close,
    chain,
    feeds_of,
    names_of,
    plain,
    residual,
    tiled,
)
from tests.runtime.opened import FEEDS, check_left_to_ort, left, opened
from tests.runtime.sessions import options

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture(scope="module")
def model() -> ModelProto:
    return tiled(residual())


@pytest.fixture(scope="module")
def expected() -> list[np.ndarray]:
    return plain(residual(), FEEDS)


@pytest.mark.parametrize("form", ["path", "text", "bytes", "proto"])
def test_options_make_a_session_that_gives_ort_s_results(
    form: str, model: ModelProto, expected: list[np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    given = {"path": path, "text": str(path), "bytes": path.read_bytes(), "proto": model}[form]
    session = ort.InferenceSession(path, session_options(given))
    assert_close(session.run(None, FEEDS), expected)
    assert stats(session).runs == 1


@pytest.mark.parametrize("form", ["path", "text", "bytes"])
def test_a_session_in_one_step(
    form: str, model: ModelProto, expected: list[np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    given = {"path": path, "text": str(path), "bytes": path.read_bytes()}[form]
    session = InferenceSession(given)
    assert isinstance(session, ort.InferenceSession)
    assert_close(session.run(None, FEEDS), expected)
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_the_tiled_model_runs_without_us_and_inlined(model: ModelProto) -> None:
    assert_close(plain(model, FEEDS), plain(inlined(model), FEEDS), rtol=0)


def test_counters_tell_what_ran(model: ModelProto) -> None:
    session = opened(model)
    for _ in range(3):
        session.run(None, FEEDS)
    found = stats(session)
    assert list(found.regions) == names_of(model)
    assert (found.runs, dict(found.left)) == (3, {})
    (counters,) = found.regions.values()
    assert (counters.kernels_created, counters.runs, counters.failures) == (1, 3, 0)
    assert found.packed_bytes == counters.packed_bytes > 0
    assert counters.nanoseconds > 0


def test_sessions_that_are_not_ours_have_no_counters() -> None:
    session = ort.InferenceSession(residual().SerializeToString(), options())
    assert stats(session).runs == 0
    assert not stats(session).left


def test_sessions_in_one_process_count_for_themselves(model: ModelProto) -> None:
    other = tiled(chain())
    one, two, three = opened(model), opened(model), opened(other)
    feeds = feeds_of(other, N=2)
    one.run(None, FEEDS)
    one.run(None, FEEDS)
    assert_close(three.run(None, feeds), plain(other, feeds))
    assert [stats(each).runs for each in (one, two, three)] == [2, 0, 2]
    del one
    two.run(None, FEEDS)
    assert stats(two).runs == 1


def test_base_is_completed_and_returned_and_nothing_in_it_changes(model: ModelProto) -> None:
    base = options(2)
    base.add_session_config_entry("session.intra_op.allow_spinning", "0")
    base.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    base.enable_mem_pattern = False
    before = {name: getattr(base, name) for name in settings(base)}
    assert session_options(model, base=base) is base
    assert {name: getattr(base, name) for name in settings(base)} == before
    assert base.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def settings(base: ort.SessionOptions) -> list[str]:
    return [n for n in dir(base) if n[0] != "_" and not callable(getattr(base, n))]


def test_options_serve_one_model(model: ModelProto) -> None:
    base = session_options(model)
    with pytest.raises(InputError, match="fresh ones"):
        session_options(tiled(chain()), base)
    assert session_options(model, base) is base


def test_options_may_be_made_before_our_session_is(
    model: ModelProto, expected: list[np.ndarray]
) -> None:
    session = InferenceSession(model.SerializeToString(), session_options(model, options()))
    assert_close(session.run(None, FEEDS), expected)
    assert stats(session).runs == 1


def test_options_serve_any_number_of_sessions_of_their_model(
    model: ModelProto, expected: list[np.ndarray]
) -> None:
    base = session_options(model, options())
    made = [ort.InferenceSession(model.SerializeToString(), base) for _ in range(3)]
    for session in made:
        assert_close(session.run(None, FEEDS), expected)


def test_a_model_without_regions_needs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    base = options()
    session = InferenceSession(residual().SerializeToString(), base)
    assert_close(session.run(None, FEEDS), plain(residual(), FEEDS), rtol=0)
    session_options(residual(), base)  # there is nothing in the way of another model
    assert not caplog.records


def test_providers_may_come_with_options(model: ModelProto) -> None:
    given = model.SerializeToString()
    session = InferenceSession(given, options(), ["CPUExecutionProvider"], [{}])
    assert not left(session)
    assert not left(InferenceSession(given, options(), providers=[("CPUExecutionProvider", {})]))
    assert not left(InferenceSession(given, options(), providers=ort.get_available_providers()))


@pytest.mark.parametrize("given", ["CUDAExecutionProvider", ("CUDAExecutionProvider", {"a": "b"})])
def test_other_providers_have_the_regions_left_to_them(given: object, model: ModelProto) -> None:
    made = session_options(model, options(), providers=[given, "CPUExecutionProvider"])
    session = ort.InferenceSession(model.SerializeToString(), made)
    check_left_to_ort(session, "CUDAExecutionProvider may take them")


def test_providers_in_the_options_are_left_alone(model: ModelProto) -> None:
    base = options()
    if not hasattr(base, "add_provider_for_devices"):
        pytest.skip("options of this ONNX Runtime name no providers")
    devices = [each for each in ort.get_ep_devices() if each.ep_name == "CPUExecutionProvider"]
    base.add_provider_for_devices(devices, {})
    check_left_to_ort(InferenceSession(model.SerializeToString(), base), "name execution providers")


def test_what_can_not_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        session_options(tmp_path / "missing.onnx")
    with pytest.raises(InputError, match="can't be read"):
        InferenceSession(tmp_path)
    with pytest.raises(InputError, match="can't be parsed"):
        session_options(b"version https://git-lfs.github.com/spec/v1")
