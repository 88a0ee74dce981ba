"""Compiles the kernels of a model: those in the cache at once, a few here, many in processes.

compile_all  kernels -> code files, or the reasons why there are none
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ort_optim.compiler.cache import CodeCache, has_compiler
from ort_optim.compiler.code import CodeFile
from ort_optim.compiler.image import Image
from ort_optim.kernels.base import Kernel
from ort_optim.kernels.isa import Isa

FEW = 3
"""Kernels that are compiled sooner here than a process has started."""

KERNEL_SECONDS = 120.0
"""Longer than any kernel takes on a busy machine; LLVM then hangs."""

Progress = Callable[[int, int], None]
"""Told how many kernels are compiled, and of how many."""


@dataclass(frozen=True)
class BuildError:
    """A kernel that could not be compiled, and why."""

    kernel: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kernel}: {self.reason}"


def compile_all(
    kernels: Iterable[Kernel],
    isa: Isa,
    cache: CodeCache,
    *,
    progress: Progress | None = None,
    workers: int | None = None,
) -> dict[Kernel, CodeFile | BuildError]:
    """The code of each distinct kernel. What is not in the cache is compiled and put there.

    `workers` is the number of processes for more than a few kernels; by default one for each CPU
    this process may use.
    """
    distinct = list(dict.fromkeys(kernels))
    found: dict[Kernel, CodeFile | BuildError] = {}
    missing = []
    for kernel in distinct:
        file = cache.find(kernel, isa)
        if file is None:
            missing.append(kernel)
        else:
            found[kernel] = file
    if not missing:
        return found
    if not has_compiler():
        absent = "llvmlite is not installed"
        return found | {kernel: BuildError(kernel.name, absent) for kernel in missing}
    for kernel, image in _images(missing, isa, progress, workers).items():
        found[kernel] = _kept(kernel, isa, image, cache)
    with contextlib.suppress(OSError):
        cache.trim()
    return found


def _kept(kernel: Kernel, isa: Isa, image: Image | str, cache: CodeCache) -> CodeFile | BuildError:
    if isinstance(image, str):
        return BuildError(kernel.name, image)
    try:
        return cache.store(kernel, isa, image)
    except OSError as error:
        return BuildError(kernel.name, f"{cache.folder} can't be written to: {error}")


def _images(
    kernels: list[Kernel], isa: Isa, progress: Progress | None, workers: int | None
) -> dict[Kernel, Image | str]:
    done = 0
    lock = threading.Lock()

    def finish() -> None:
        nonlocal done
        with lock:
            done += 1
            if progress is not None:
                progress(done, len(kernels))

    if progress is not None:
        progress(0, len(kernels))
    count = _cpus() if workers is None else workers
    if len(kernels) <= FEW or count < 1 or not sys.executable:
        return _compiled_here(kernels, isa, finish)
    return _compiled_elsewhere(kernels, isa, min(count, len(kernels)), finish)


def _compiled_here(
    kernels: list[Kernel], isa: Isa, finish: Callable[[], None]
) -> dict[Kernel, Image | str]:
    from ort_optim.compiler.worker import compile_kernel

    found = {}
    for kernel in kernels:
        found[kernel] = compile_kernel(kernel, isa)
        finish()
    return found


def _compiled_elsewhere(
    kernels: list[Kernel], isa: Isa, count: int, finish: Callable[[], None]
) -> dict[Kernel, Image | str]:
    waiting: queue.SimpleQueue[Kernel] = queue.SimpleQueue()
    for kernel in kernels:
        waiting.put(kernel)
    found: dict[Kernel, Image | str] = {}

    def serve() -> None:
        with _Worker() as worker:
            while True:
                try:
                    kernel = waiting.get_nowait()
                except queue.Empty:
                    return
                found[kernel] = worker.compile(kernel, isa)
                finish()

    with ThreadPoolExecutor(count, thread_name_prefix="ort_optim-compile") as pool:
        for each in [pool.submit(serve) for _ in range(count)]:
            each.result()
    return found


class _Worker:
    """One process of `ort_optim.compiler.worker`, started again where it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._end()

    def compile(self, kernel: Kernel, isa: Isa) -> Image | str:
        """The kernel's code, or the reason why it can't be compiled."""
        timer: threading.Timer | None = None
        try:
            process = self._started()
            timer = threading.Timer(KERNEL_SECONDS, process.kill)
            timer.start()
            assert process.stdin is not None
            assert process.stdout is not None
            pickle.dump((kernel, isa), process.stdin, protocol=5)
            process.stdin.flush()
            reply: Image | str = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.PickleError) as error:
            code = self._end()
            return f"its compiler ended with code {code} ({type(error).__name__})"
        finally:
            if timer is not None:
                timer.cancel()
        return reply

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                # -P: nothing is imported from the current folder, which may be a downloaded one
                [sys.executable, "-P", "-m", "ort_optim.compiler.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
            )
        return self._process

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        ended = process.poll()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        if ended is None:
            process.kill()
        return process.wait()


def _environment() -> dict[str, str]:
    """The worker must import this very package, installed or not."""
    parent = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([parent, *([inherited] if inherited else [])]),
    }


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
