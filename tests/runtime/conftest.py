"""The machine code that the tests of the native library run."""

from __future__ import annotations

import pytest

from ort_optim.runtime import library
from tests.runtime.regions import Code, compile_code


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Code:
    assert library.unavailable_reason() is None
    return compile_code(tmp_path_factory.mktemp("code"))
