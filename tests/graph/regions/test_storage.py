from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from ort_optim.engine import Engine
from ort_optim.graph import load_model
from ort_optim.graph.regions import sound_calls, weights_apart
from ort_optim.graph.save import save_model
from tests.graph.regions.harness import run, same_bits, wrapped
from tests.passes.harness import feeds_for, model_of

BODY = """g (float[1,256,6,6] x) => (float[1,256,6,6] y) {
    a = Conv<pads=[1,1,1,1]>(x, w1, b)
    c = Conv<pads=[1,1,1,1]>(a, w2)
    d = Conv<pads=[1,1,1,1], group=256>(c, small)
    e = MatMul(d, other)
    f = Conv<pads=[1,1,1,1]>(e, w3)
    n = ReduceSum(w3)
    y = Mul(f, n)
}"""


def model(Cin: int = 256) -> ModelProto:  # noqa: N803 - the field's name
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / 50).astype(np.float32)

    weights = {
        "w1": normal(2048, Cin, 3, 3),  # 18.9 MB at 256
        "w2": normal(256, 2048, 3, 3),
        "w3": normal(256, Cin, 3, 3),
        "b": normal(2048),
        "small": normal(256, 1, 3, 3),
        "other": normal(6, 6),
    }
    return wrapped(model_of(BODY.replace("256,6,6", f"{Cin},6,6", 1), weights=weights))


def test_heavy_weights_that_only_calls_read_go_to_a_file(tmp_path: Path, engine: Engine) -> None:
    made = model()
    names = weights_apart(made)
    assert names == {"w1", "w2"}  # others are small, or read by another node too
    out = tmp_path / "out.onnx"
    save_model(made, tmp_path, out, apart=names)
    loaded = load_model(out)
    assert len(loaded.data_files) == 1
    assert len(sound_calls(loaded.model).calls) == 2
    onnx.checker.check_model(str(out), full_check=True)
    feeds = feeds_for(made)
    handle = engine.open(out)
    try:
        got = engine.run(handle, feeds)
    finally:
        engine.close(handle)
    wanted = run(engine, made, feeds, optimize=False)
    assert same_bits(got["y"], wanted["y"])


@pytest.mark.parametrize("kind", ["light", "without calls"])
def test_where_it_does_not_pay_no_weight_goes(kind: str) -> None:
    made = model(Cin=1)
    if kind == "light":
        for tensor in made.graph.initializer:
            del tensor.dims[1:]
    else:
        del made.functions[:]
    assert weights_apart(made) == frozenset()
