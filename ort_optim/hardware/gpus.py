"""NVIDIA GPUs through NVML (nvidia-ml-py, the extra `gpu`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .files import Tree
from .target import Gpu

# Where the NVIDIA driver shows itself on Linux; the second is Windows' driver seen from WSL 2.
_DRIVER_TRACES = ("proc/driver/nvidia/version", "dev/dxg")


def read_gpus(tree: Tree, *, look_first: bool = True) -> tuple[Gpu, ...]:
    """GPUs that NVML reports and CUDA_VISIBLE_DEVICES leaves to this process.

    Empty without a driver or without nvidia-ml-py; a driver that fails is a warning. NVML is not
    even imported (20 ms) where no driver shows itself, unless `look_first` is False.
    """
    if look_first and not any(map(tree.exists, _DRIVER_TRACES)):
        return ()
    try:
        import pynvml
    except ImportError:
        if look_first:
            tree.warn("there is an NVIDIA driver, but nvidia-ml-py is not installed: GPUs unknown")
        return ()
    except Exception as error:
        tree.warn(f"nvidia-ml-py can't be imported ({_one_line(error)}): GPUs unknown")
        return ()
    try:
        pynvml.nvmlInit()
    except Exception as error:  # whatever a broken driver makes of the call
        if look_first:
            tree.warn(f"NVML does not answer ({_one_line(error)}): GPUs unknown")
        return ()
    try:
        found = [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception as error:
        tree.warn(f"NVML fails ({_one_line(error)}): GPUs unknown")
        return ()
    finally:
        try:
            pynvml.nvmlShutdown()
        except Exception as error:
            tree.warn(f"NVML can't be shut down ({_one_line(error)})")
    return _visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _gpu(pynvml: Any, index: int) -> tuple[Gpu, str]:
    """One GPU and its UUID."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    gpu = Gpu(
        index=index,
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        compute_capability=f"{int(major)}.{int(minor)}",
    )
    return gpu, _text(pynvml.nvmlDeviceGetUUID(handle))


def _visible(found: Sequence[tuple[Gpu, str]], mask: str | None) -> tuple[Gpu, ...]:
    """The GPUs CUDA would show: those listed by index or UUID prefix, up to the first bad entry."""
    if mask is None:
        return tuple(gpu for gpu, _ in found)
    chosen: list[Gpu] = []
    for word in (part.strip() for part in mask.split(",")):
        if word.isascii() and word.isdigit():
            match = [gpu for gpu, _ in found if str(gpu.index) == word]
        else:
            match = [gpu for gpu, uuid in found if word and uuid.startswith(word)]
        if len(match) != 1 or match[0] in chosen:
            break
        chosen += match
    return tuple(chosen)


def _text(value: str | bytes) -> str:
    """NVML gave bytes before version 11.5 of its Python bindings."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
