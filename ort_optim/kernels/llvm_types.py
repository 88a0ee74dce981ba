"""llvmlite's `ir` and the types that code is made of, imported when one of them is first used.

Whoever finds the code of its kernels in the cache writes none, and never imports llvmlite.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llvmlite import ir as ir

    I32: ir.IntType
    I64: ir.IntType
    F32: ir.FloatType
    POINTER: ir.PointerType
    VOID: ir.VoidType

_NAMES = frozenset({"ir", "I32", "I64", "F32", "POINTER", "VOID"})


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    ir = import_module("llvmlite.ir")
    globals().update(
        ir=ir,
        I32=ir.IntType(32),
        I64=ir.IntType(64),
        F32=ir.FloatType(),
        POINTER=ir.PointerType(),
        VOID=ir.VoidType(),
    )
    return globals()[name]
