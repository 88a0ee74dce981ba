"""Sizes that are known at run time alone: nothing is compiled for them, and wrong ones are told."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from ort_optim.compiler import build
from ort_optim.runtime import prepare
from ort_optim.runtime.session import InferenceSession, stats
from tests.runtime.networks import (
    assert_close,
    chain,
    feeds_of,
    names_of,
    plain,
    residual,
    tiled,
)
from tests.runtime.opened import opened
from tests.runtime.sessions import options

pytestmark = pytest.mark.usefixtures("warm")

STRADDLING = (1, 2, 7, 8, 9, 15, 16, 17, 31, 33)


@pytest.mark.parametrize("threads", [1, 2])
def test_any_size_is_right_and_compiles_nothing(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = residual("N", "H")
    session = opened(tiled(before), threads)
    monkeypatch.setattr(prepare, "compile_all", _never)
    monkeypatch.setattr(build, "_images", _never)
    pairs = [*zip(STRADDLING, STRADDLING[::-1], strict=True), (9, 9), (13, 5)]
    for number, (height, width) in enumerate(pairs):
        feeds = feeds_of(before, seed=number, N=1 + number % 3, H=height, W=width)
        assert_close(session.run(None, feeds), plain(before, feeds))
    assert stats(session).runs == len(pairs)


def _never(*_: Any, **__: Any) -> None:
    raise AssertionError("a run compiles")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", [(0, 9, 9), (2, 0, 9), (2, 9, 0), (0, 0, 0)])
def test_nothing_in_gives_nothing_out(sizes: tuple[int, int, int], threads: int) -> None:
    before = residual("N", "H")
    session = opened(tiled(before), threads)
    feeds = dict(zip("NHW", sizes, strict=True))
    (found,) = session.run(None, feeds_of(before, **feeds))
    N, H, W = sizes
    assert found.shape == (N, 33, -(-H // 2), -(-W // 2))  # where ORT has no kernel for it, too
    after = feeds_of(before, N=2, H=5, W=6)
    assert_close(session.run(None, after), plain(before, after))


def test_calls_of_one_region_with_other_sizes_share_its_code() -> None:
    before = chain(size=9)
    # the second convolution sees another image than the first
    before.graph.node[0].attribute[-1].ints[:] = [0, 0, 0, 0]
    before.graph.node[3].attribute[-1].ints[:] = [0, 0, 0, 0]
    del before.graph.value_info[:]
    model = tiled(before)
    assert len(set(names_of(model))) == 1
    session = opened(model)
    feeds = feeds_of(before, N=3)
    assert_close(session.run(None, feeds), plain(before, feeds))
    assert stats(session).runs == 2


def shaped_by_an_input() -> ModelProto:
    """A region on an image whose shape is another input: the model states only what it should be.

    Nothing can tell it before the run.
    """
    made = residual("N", "H")
    image = made.graph.input[0]
    made.graph.value_info.append(image)
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n"]))
    made.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [4]))
    made.graph.node.insert(0, helper.make_node("Reshape", ["flat", "shape"], ["x0"]))
    return made


def test_a_wrong_shape_is_an_error_that_names_the_region() -> None:
    before = shaped_by_an_input()
    model = tiled(before)
    session = opened(model)
    image = np.random.default_rng(0).standard_normal(2 * 15 * 8 * 9, dtype=np.float32)
    with pytest.raises(Exception, match="has 5 on axis 1, compiled for 3") as caught:
        session.run(None, {"flat": image, "shape": np.array([6, 5, 8, 9])})
    assert names_of(model)[0] in str(caught.value)
    feeds = {"flat": image, "shape": np.array([10, 3, 8, 9])}
    assert_close(session.run(None, feeds), plain(before, feeds))
    (counters,) = stats(session).regions.values()
    assert (counters.runs, counters.failures) == (2, 1)


def test_a_size_that_is_pinned_in_the_model_is_checked_by_ort_first() -> None:
    session = opened(tiled(residual()))
    with pytest.raises(Exception, match="x0"):
        session.run(None, {"x0": np.zeros((1, 3, 8, 9), np.float32)})


def test_every_batch_of_a_fixed_size_is_right() -> None:
    before = residual("N", 11)
    session = opened(tiled(before))
    for batch in itertools.chain(range(6), (0, 3)):
        feeds = feeds_of(before, seed=batch, N=batch)
        assert_close(session.run(None, feeds), plain(before, feeds))


def test_sizes_that_options_fix_are_right() -> None:
    before = residual("N", "H")
    base = options()
    base.add_free_dimension_override_by_name("N", 4)
    session = InferenceSession(tiled(before).SerializeToString(), base)
    feeds = feeds_of(before, N=4, H=8, W=11)
    assert_close(session.run(None, feeds), plain(before, feeds))
    assert stats(session).runs == 1
