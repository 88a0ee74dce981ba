"""A session with a custom operator library of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ort_optim.engine import Engine, EngineError, Extension, ModelSource
from ort_optim.runtime import blob, library
from tests.runtime.regions import compile_code, expected, model_of, plan_of

W = np.arange(-2, 2, dtype=np.float32).reshape(4, 1, 1)
X = np.linspace(-1, 1, 4 * 6, dtype=np.float32).reshape(1, 4, 2, 3)


def test_only_the_session_that_was_given_an_extension_has_it(
    engine: Engine, tmp_path: Path
) -> None:
    plan = plan_of(compile_code(tmp_path), channels=4)
    extension = Extension(library.library_path(), blob.encode([plan], threads=1))
    source = ModelSource(proto=model_of(W).SerializeToString(), extension=extension)
    with_it = engine.open(source, optimize=True)
    without = engine.open(model_of(W), optimize=True)
    try:
        for handle in (with_it, without):
            np.testing.assert_allclose(engine.run(handle, {"x": X})["y"], expected(X, W), rtol=1e-6)
        wider = {"x": np.zeros((1, 1, 2, 3), np.float32)}
        assert engine.run(without, wider)["y"].shape == (1, 4, 2, 3)
        with pytest.raises(EngineError, match="compiled for 4"):
            engine.run(with_it, wider)
    finally:
        engine.close(with_it)
        engine.close(without)


def test_a_blob_that_the_library_refuses_is_an_engine_error(engine: Engine) -> None:
    extension = Extension(library.library_path(), b"no plan at all")
    with pytest.raises(EngineError, match="no plan"):
        engine.open(ModelSource(proto=model_of(W).SerializeToString(), extension=extension))
