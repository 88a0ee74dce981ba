"""Sessions with regions, and what is to be seen of them."""

from __future__ import annotations

import onnxruntime as ort
from onnx import ModelProto

from ort_optim.runtime.session import InferenceSession, stats
from tests.runtime.networks import assert_close, feeds_of, plain, residual
from tests.runtime.sessions import options

FEEDS = feeds_of(residual())


def opened(model: ModelProto, threads: int = 1) -> InferenceSession:
    """A session of the model, its regions run by code of ours."""
    return InferenceSession(model.SerializeToString(), options(threads))


def left(session: ort.InferenceSession) -> dict[str, str]:
    """What is left to ONNX Runtime, and why."""
    return dict(stats(session).left)


def check_left_to_ort(session: ort.InferenceSession, reason: str) -> None:
    """All regions run in ONNX Runtime, for this reason, and give what it gives."""
    (said,) = left(session).values()
    assert reason in said
    assert not stats(session).regions
    assert_close(session.run(None, FEEDS), plain(residual(), FEEDS), rtol=0)
