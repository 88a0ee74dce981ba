"""Peak arithmetic and memory bandwidth by NumPy. Run as a program of its own, in a child process:
the BLAS inside NumPy takes its number of threads from the environment when it is loaded.

    python benchmark.py THREADS ARRAY_BYTES   ->   one line of JSON

Best of several rounds each, for a peak is what was reached, not what was usual.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from time import perf_counter, process_time

import numpy as np

# 1024: the three matrices (12 MiB) are large enough for BLAS's blocking to pay and one product
# (2.1 GFLOP) takes 20 ms on a fast core. Smaller sizes fall 5% short of the peak.
_MATMUL_SIZE = 1024
_MIN_ROUNDS = 3
_SECONDS = 0.25


def best_seconds(call: Callable[[], object]) -> float:
    """Shortest time of `call` after one unmeasured round, within about `_SECONDS`."""
    call()
    best, rounds, end = float("inf"), 0, perf_counter() + _SECONDS
    while rounds < _MIN_ROUNDS or perf_counter() < end:
        start = perf_counter()
        call()
        best = min(best, perf_counter() - start)
        rounds += 1
    return best


def peak_gflops() -> float:
    """fp32 GFLOP/s of a square matrix product on the threads BLAS was given."""
    n = _MATMUL_SIZE
    rng = np.random.default_rng(0)
    a = rng.standard_normal((n, n), dtype=np.float32)
    b = rng.standard_normal((n, n), dtype=np.float32)
    out = np.empty((n, n), dtype=np.float32)
    return 2 * n**3 / best_seconds(lambda: np.matmul(a, b, out=out)) / 1e9


def copy_gbs(threads: int, array_bytes: int) -> float:
    """GB/s, read plus written, of `threads` threads that copy one array of `array_bytes` in all.

    Each thread copies a slice of its own, which it was also the first to touch, so that on a NUMA
    machine the slice lies on its node.
    """
    n = max(threads, array_bytes // 4)
    source = np.empty(n, dtype=np.float32)
    sink = np.empty(n, dtype=np.float32)
    bounds = [n * i // threads for i in range(threads + 1)]
    slices = [slice(low, high) for low, high in pairwise(bounds)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda s: source[s].fill(1.0), slices))
        # np.copyto lets go of the interpreter lock, so the slices are copied at the same time.
        seconds = best_seconds(
            lambda: list(pool.map(lambda s: np.copyto(sink[s], source[s]), slices))
        )
    return 2 * source.nbytes / seconds / 1e9


def main(threads: int, array_bytes: int) -> None:
    """Measure and print the figures."""
    core = copy_gbs(1, array_bytes)
    wall, cpu = perf_counter(), process_time()
    peak = peak_gflops()
    share = (process_time() - cpu) / (perf_counter() - wall)
    figures = {
        "peak_gflops": peak,
        "core_bandwidth_gbs": core,
        "memory_bandwidth_gbs": max(core, copy_gbs(threads, array_bytes)) if threads > 1 else core,
        "cpu_share": share,  # of one core while the peak was measured: 1 on a quiet machine
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
