"""The native library: where it is, handing it plans, and reading its counters."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ort_optim.errors import OrtOptimError

SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
TEXT_BYTES = 512

SWITCH = "ORT_OPTIM_DISABLE"
"""Environment variable: anything but nothing and 0 leaves all regions to ONNX Runtime."""


class LibraryError(OrtOptimError):
    """The native library is missing, or refuses a plan."""


@dataclass(frozen=True)
class Counters:
    """What one region of one registration did so far.

    Attributes:
        kernels_created, kernels_alive: A session has one kernel for each call of the region.
        runs, failures: Calls of the region; failures count those at creation too.
        packed_bytes: Weights in the form that the code reads, of the kernels alive.
        workspace_bytes: The most that one run took from the process's pool.
        nanoseconds: Time spent in runs.
        runs_under_way: Runs that have begun and not ended.
    """

    kernels_created: int
    kernels_alive: int
    runs: int
    failures: int
    packed_bytes: int
    workspace_bytes: int
    nanoseconds: int
    runs_under_way: int


@dataclass(frozen=True)
class Totals:
    """What the library holds in this process.

    Attributes:
        kernels_alive: Of all sessions.
        workspaces, workspace_bytes: The pool that runs take their memory from.
        code_bytes: Mapped code files.
        plans, registrations: Kept as long as the process lives; equal plans are one, and sessions
            of one plan that are not open at the same time share a registration.
    """

    kernels_alive: int
    workspaces: int
    workspace_bytes: int
    code_bytes: int
    plans: int
    registrations: int


def library_path() -> Path:
    """Where the built library is, or would be."""
    return Path(__file__).with_name(f"ort_optim_native{SUFFIX}")


def unavailable_reason() -> str | None:
    """Why no region is to run in this process; None if nothing stands against it."""
    if os.environ.get(SWITCH, "") not in ("", "0"):
        return f"{SWITCH} is set"
    return _fault()


@functools.cache
def _fault() -> str | None:
    """Why the library can't be used."""
    if not library_path().is_file():
        return (
            f"the native library is not built ({library_path().name} is missing): "
            "install ort_optim with a C compiler, or run `python setup.py build_ext --inplace`"
        )
    if sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return "the native library needs a 64-bit little-endian processor"
    try:
        _library()
    except (OSError, AttributeError) as error:
        return f"the native library can't be loaded: {error}"
    return None


def stage(blob: bytes) -> int:
    """Hand over a plan for the next `register_custom_ops_library` on this thread.

    Returns the number of the registration, for its counters. Raises LibraryError with the reason
    where the plan, or a code file it names, is refused.
    """
    library = _checked()
    error = library.ort_optim_stage(blob, len(blob))
    if error is not None:
        raise LibraryError(f"the native library refuses a plan: {error.decode(errors='replace')}")
    return int(library.ort_optim_registration())


def counters(registration: int, region: str) -> Counters | None:
    """None where there is no such region, or its sessions ended and a new one took its place."""
    numbers = (ctypes.c_int64 * 8)()
    if not _checked().ort_optim_counters(registration, region.encode(), numbers):
        return None
    return Counters(*numbers)


def step_nanoseconds(registration: int, region: str) -> tuple[int, ...]:
    """Time spent in each step so far; empty unless the plan was encoded with `time_steps`."""
    function = _checked().ort_optim_step_times
    numbers = (ctypes.c_int64 * function(registration, region.encode(), None, 0))()
    function(registration, region.encode(), numbers, len(numbers))
    return tuple(numbers)


def last_error(registration: int, region: str) -> str | None:
    """The last error of a region; None if there was none."""
    text = ctypes.create_string_buffer(TEXT_BYTES)
    _checked().ort_optim_last_error(registration, region.encode(), text, TEXT_BYTES)
    return text.value.decode(errors="replace") or None


def totals() -> Totals:
    """What the library holds in this process."""
    numbers = (ctypes.c_int64 * 8)()
    _checked().ort_optim_totals(numbers)
    return Totals(*numbers[:6])


def _checked() -> ctypes.CDLL:
    if reason := _fault():
        raise LibraryError(reason)
    return _library()


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(os.fspath(library_path()))
    numbers = ctypes.POINTER(ctypes.c_int64)
    for name, result, parameters in (
        ("ort_optim_stage", ctypes.c_char_p, (ctypes.c_char_p, ctypes.c_int64)),
        ("ort_optim_registration", ctypes.c_int64, ()),
        ("ort_optim_counters", ctypes.c_int, (ctypes.c_int64, ctypes.c_char_p, numbers)),
        (
            "ort_optim_step_times",
            ctypes.c_int64,
            (ctypes.c_int64, ctypes.c_char_p, numbers, ctypes.c_int64),
        ),
        (
            "ort_optim_last_error",
            ctypes.c_int,
            (ctypes.c_int64, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int64),
        ),
        ("ort_optim_totals", None, (numbers,)),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = parameters
    return library
