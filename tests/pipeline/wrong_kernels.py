"""Kernels that compute nothing; no cache knows their names, nor the plans that have them."""

from __future__ import annotations

from typing import Any

import pytest
from llvmlite import ir

from ort_optim.kernels.winograd_packing import WinogradPacking


def spoil_winograd(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the weights of Winograd convolutions are never packed."""
    real = WinogradPacking.write

    def without_work(self: WinogradPacking, isa: Any) -> Any:
        code = real(self, isa)
        code.module.functions[0].blocks.clear()
        block = code.module.functions[0].append_basic_block("entry")
        block.terminator = None
        ir.IRBuilder(block).ret_void()
        return code

    monkeypatch.setattr(WinogradPacking, "name", property(lambda self: "wrong_packing"))
    monkeypatch.setattr(WinogradPacking, "write", without_work)
    for source in ("_generator", "_planner"):
        monkeypatch.setattr(f"ort_optim.compiler.cache.{source}", lambda: "wrong")
    monkeypatch.setattr("ort_optim.compiler.build.FEW", 1000)  # all in this process
