"""A model that was tiled for another machine than the one it runs on."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from onnx import ModelProto

from ort_optim.graph.regions import Tiling
from ort_optim.hardware import Target
from ort_optim.runtime import session as sessions
from ort_optim.runtime.machine import fingerprint
from ort_optim.runtime.session import stats
from tests.compiler.regions import Net
from tests.runtime.networks import (
    ELSEWHERE,
    assert_close,
    feeds_of,
    machine,
    plain,
    residual,
    tiled,
)
from tests.runtime.opened import FEEDS, left, opened

pytestmark = pytest.mark.usefixtures("warm")


def from_elsewhere(tiling: Tiling) -> Tiling:
    return replace(tiling, target=ELSEWHERE)


def use(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_machine", lambda: target)


def wide() -> ModelProto:
    """Convolutions of which no machine leaves one to ONNX Runtime."""
    net = Net(3, 17)
    x = net.add("Relu", net.conv(net.input("N", 32, "H", "W"), 32, 48, k=3))
    return net.model(net.add("Sigmoid", net.conv(x, 48, 40)))


def test_templates_are_chosen_anew_and_that_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    before = wide()
    model = tiled(before, edit=from_elsewhere)
    opened(model)
    caplog.clear()
    with caplog.at_level(logging.INFO, "ort_optim"):
        session = opened(model)
    (line,) = caplog.messages
    assert ELSEWHERE in line
    feeds = feeds_of(before, N=2, H=13, W=18)
    assert_close(session.run(None, feeds), plain(before, feeds))
    assert stats(session).runs == 1


@pytest.mark.parametrize("avx2_file", [True, False])
@pytest.mark.parametrize("avx2_machine", [True, False])
def test_files_move_between_machines(
    avx2_file: bool, avx2_machine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if machine().vector_bits == 256 and not (avx2_file and avx2_machine):
        pytest.skip("needs AVX-512")
    use(machine(avx2=avx2_machine), monkeypatch)
    before = wide()
    session = opened(tiled(before, machine(avx2=avx2_file)))
    for H, W in ((7, 9), (16, 16), (33, 5)):
        feeds = feeds_of(before, N=2, H=H, W=W)
        assert_close(session.run(None, feeds), plain(before, feeds))
    assert stats(session).runs == 3
    assert not left(session)


def test_all_templates_run_with_avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    use(machine(avx2=True), monkeypatch)
    session = opened(tiled(residual(), machine(avx2=True)))
    assert_close(session.run(None, FEEDS), plain(residual(), FEEDS))
    assert stats(session).runs == 1


def test_a_machine_without_what_any_template_demands_leaves_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(replace(machine(), caches=()), monkeypatch)  # nothing is known of its caches
    session = opened(tiled(wide()))
    (reason,) = left(session).values()
    assert "no template fits this machine" in reason
    feeds = feeds_of(wide(), N=1, H=8, W=8)
    assert_close(session.run(None, feeds), plain(wide(), feeds), rtol=0)


def test_one_s_own_machine_is_no_other() -> None:
    assert fingerprint(machine()) != ELSEWHERE
    assert fingerprint(machine()) == fingerprint(replace(machine(), name="x", model="y"))
