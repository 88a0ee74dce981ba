"""The one door to LLVM's code generator: a module in, a relocatable object out."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from ort_optim.kernels.isa import Isa

_LOCK = threading.Lock()  # LLVM compiles one module at a time in a process


@cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@cache
def _target_machine(isa: Isa) -> Any:
    _initialize()
    triple = isa.triple if "linux" in isa.triple or "elf" in isa.triple else _elf(isa.triple)
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=isa.cpu,
        features=",".join(f"+{each}" for each in isa.features),
        opt=3,
        reloc="pic",
        codemodel="small",
    )


def _elf(triple: str) -> str:
    """The triple of the same machine with ELF objects, which is what images are made of."""
    return f"{triple.split('-', 1)[0]}-unknown-none-elf"


def compile_object(module: ir.Module, isa: Isa) -> bytes:
    """An ELF object with the module's code, position independent."""
    with _LOCK:
        parsed, machine = _optimized(module, isa)
        compiled: bytes = machine.emit_object(parsed)
    return compiled


def _optimized(module: ir.Module, isa: Isa) -> tuple[Any, Any]:
    machine = _target_machine(isa)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return parsed, machine
