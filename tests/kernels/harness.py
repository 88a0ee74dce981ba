"""Compiles one kernel and calls it on NumPy arrays in this process."""

from __future__ import annotations

import ctypes
import mmap
import tempfile
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ort_optim.compiler.image import link
from ort_optim.compiler.llvm import compile_object
from ort_optim.hardware import load_target
from ort_optim.kernels.base import Kernel, Launch
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.sizes import Size
from ort_optim.kernels.tensors import Layout

GUARD = 64
"""Floats behind scratch memory that must stay as they are."""

AVX512 = Isa.of(load_target("x86-64-v4"))
AVX2 = Isa.of(load_target("x86-64-v3"))

_FUNCTION = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p
)
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]


class Compiled:
    """A kernel's machine code, mapped for the life of the process."""

    def __init__(self, kernel: Kernel, isa: Isa) -> None:
        self.kernel = kernel
        image = link(compile_object(kernel.write(isa).finish(), isa))
        with tempfile.TemporaryFile() as file:
            file.write(image.code)
            file.flush()
            access = mmap.PROT_READ | mmap.PROT_EXEC
            base = _libc.mmap(None, len(image.code), access, mmap.MAP_PRIVATE, file.fileno(), 0)
        assert base not in (None, ctypes.c_void_p(-1).value)
        self.code_bytes = len(image.code)
        self._function = _FUNCTION(base + image.entries[kernel.name])

    def run(
        self,
        arrays: Mapping[str, int],
        values: Mapping[str, int],
        tasks: int,
        scratch_bytes: int = 0,
    ) -> None:
        """Call it for every task; `arrays` are addresses by pointer name."""
        kernel = self.kernel
        pointers = (ctypes.c_void_p * max(1, len(kernel.pointers)))(
            *[arrays[name] for name in kernel.pointers]
        )
        numbers = (ctypes.c_int64 * max(1, len(kernel.values)))(
            *[values[name] for name in kernel.values]
        )
        scratch = aligned(scratch_bytes // 4 + GUARD, np.nan)
        for task in range(tasks):
            self._function(
                ctypes.addressof(pointers), ctypes.addressof(numbers), task, scratch.ctypes.data
            )
        assert np.isnan(scratch[scratch_bytes // 4 :]).all(), "written beyond the scratch memory"

    def launch(self, launch: Launch, arrays: Mapping[str, int]) -> None:
        """Run a launch whose sizes are all known."""
        values = {name: known(size) for name, size in launch.values.items()}
        self.run(arrays, values, known(launch.tasks), known(launch.scratch_bytes))


def known(size: Size) -> int:
    """The number of a size that is known."""
    assert size.known is not None
    return size.known


def aligned(floats: int, fill: float = 0.0) -> NDArray[np.float32]:
    """Fresh float32 memory that begins at a multiple of 64 bytes."""
    raw = np.empty(floats * 4 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    found = raw[start : start + floats * 4].view(np.float32)
    found[:] = fill
    return found


def to_blocked(x: NDArray[np.float32], layout: Layout) -> NDArray[np.float32]:
    """(N, C, H, W) -> the memory of a blocked tensor, zero in halo and last lanes."""
    N, C, H, W = x.shape
    v, planes = layout.lanes, layout.planes
    memory = aligned(known(layout.floats))
    padded = np.zeros((N, planes * v, H, W), np.float32)
    padded[:, :C] = x
    # (N, planes * v, H, W) -> (N, planes, H, W, v)
    blocks = padded.reshape(N, planes, v, H, W).transpose(0, 1, 3, 4, 2)
    _view(memory, layout)[:] = blocks
    return memory


def from_blocked(memory: NDArray[np.float32], layout: Layout) -> NDArray[np.float32]:
    """The memory of a blocked tensor -> (N, C, H, W)."""
    blocks = _view(memory, layout)  # (N, planes, H, W, v)
    N, planes, H, W, v = blocks.shape
    return blocks.transpose(0, 1, 4, 2, 3).reshape(N, planes * v, H, W)[:, : layout.C].copy()


def origin(memory: NDArray[np.float32], layout: Layout) -> int:
    """The address of pixel (0, 0) of plane 0 of image 0."""
    return int(memory.ctypes.data) + 4 * known(layout.origin)


def _view(memory: NDArray[np.float32], layout: Layout) -> NDArray[np.float32]:
    N, H, W = known(layout.N), known(layout.H), known(layout.W)
    strides = (known(layout.batch), known(layout.plane), known(layout.row), layout.lanes, 1)
    return np.lib.stride_tricks.as_strided(
        memory[known(layout.origin) :],
        (N, layout.planes, H, W, layout.lanes),
        [4 * stride for stride in strides],
    )
