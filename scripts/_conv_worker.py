"""A process that times convolution layers for `bench_conv.py`, so a crash takes only it.

One JSON job a line on stdin, one JSON answer a line on stdout. A job:

    specs      rows as in conv_layers.csv, one for each layer of the chain
    variants   what to time beside ONNX Runtime: names of templates, or "rule"
    threads    of every session
    target     name of the machine to generate code for, null for this one
    seconds    of timing for each variant
    cpu_time   whether to take the process's CPU time for time: with one thread the same on a quiet
               machine, and less disturbed on a busy one

The answer: `times_us` of each variant that runs, ORT's as "ort"; `errors` (max abs, max rel) of
ours against ORT's; `refused` reasons of the others; `templates` and tiles of each session of ours.

A variant that comes to the same templates and tiles as one before it shares its session and times.
Each round runs every variant once, in an order drawn anew, so that none follows itself, with its
weights in the caches, more often than others. Inputs and outputs are bound once, so a time holds no
copy and no allocation in Python. With several threads, those of a session stop spinning when its
run ends (`session.force_spinning_stop`): else they would take the core from the next session.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
from _layers import conv_model, spec_of_row
from _ours import PROVIDERS, RefusedError, choices_for, machine_of, open_ours

from ort_optim.kernels.base import Tile

WARM_UP_RUNS = 3
FEWEST_ROUNDS = 7
MOST_ROUNDS = 400


def options_for(threads: int) -> ort.SessionOptions:
    """Session options as users have them, with a number of threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if threads > 1:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


class Bound:
    """A session with its input and output in place."""

    def __init__(
        self, session: ort.InferenceSession, x: np.ndarray, clock: Callable[[], int]
    ) -> None:
        self.session = session
        self.clock = clock
        self.binding = session.io_binding()
        self.binding.bind_cpu_input("x", x)
        shape = session.get_outputs()[0].shape
        self.y = ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
        self.binding.bind_ortvalue_output("y", self.y)

    def run_us(self) -> float:
        """Run once; microseconds."""
        start = self.clock()
        self.session.run_with_iobinding(self.binding)
        return (self.clock() - start) / 1000


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """The answer to one job."""
    specs = [spec_of_row(row) for row in job["specs"]]
    model = conv_model(specs)
    first = specs[0]
    assert None not in (first.N, first.H, first.W)
    shape = (first.N, first.Cin, first.H, first.W)
    x = np.random.default_rng(1).standard_normal(shape, np.float32)
    threads = job["threads"]

    clock = time.process_time_ns if job["cpu_time"] else time.perf_counter_ns
    plain = ort.InferenceSession(model.SerializeToString(), options_for(threads), PROVIDERS)
    sessions = {"ort": Bound(plain, x, clock)}
    sessions["ort"].run_us()
    want = sessions["ort"].y.numpy()
    size = float(np.abs(want).max())
    refused: dict[str, str] = {}
    chosen: dict[str, list[tuple[str, Tile]]] = {}
    twins: dict[str, str] = {}
    target = machine_of(job["target"])
    errors: dict[str, tuple[float, float]] = {}
    for variant in job["variants"]:
        try:
            choices = choices_for(specs, variant, target)
            twin = next((name for name, other in chosen.items() if other == choices), None)
            if twin is None:
                session = open_ours(model, choices, target, options_for(threads))
        except RefusedError as reason:
            refused[variant] = str(reason)
            continue
        chosen[variant] = choices
        if twin is not None:
            twins[variant] = twin
            continue
        bound = Bound(session, x, clock)
        bound.run_us()
        far = float(np.abs(bound.y.numpy() - want).max())
        errors[variant] = (far, far / size)
        sessions[variant] = bound

    times: dict[str, list[float]] = {name: [] for name in sessions}
    deadline = time.perf_counter() + job["seconds"] * len(sessions)
    order, draw = list(sessions), random.Random(0)
    for number in range(WARM_UP_RUNS + MOST_ROUNDS):
        draw.shuffle(order)
        for name in order:
            taken = sessions[name].run_us()
            if number >= WARM_UP_RUNS:
                times[name].append(taken)
        if time.perf_counter() > deadline and len(times["ort"]) >= FEWEST_ROUNDS:
            break
    for variant, twin in twins.items():
        times[variant], errors[variant] = times[twin], errors[twin]
    return {
        "status": "timed",
        "times_us": times,
        "errors": errors,
        "refused": refused,
        "templates": {
            name: [f"{template} {tile}".strip() for template, tile in choices]
            for name, choices in chosen.items()
        },
    }


def main() -> None:
    """Answer jobs until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")  # what libraries print to stdout must not mix with answers
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = measure(json.loads(line))
        except Exception as error:  # a value: the benchmark goes on with the next layer
            answer = {"status": "failed", "detail": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
