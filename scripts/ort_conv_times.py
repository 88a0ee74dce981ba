"""Measure ONNX Runtime's own convolution kernels: the table behind `ort_optim.kernels.ort_cost`.

    taskset -c 1 python scripts/ort_conv_times.py OUT.csv [--passes 3] [--seconds 0.1]

For each layer of `conv_layers.csv` and of `EXTRA` (shapes that no model of the list has), alone, in
ONNX Runtime as it comes, one thread: `conv_us`, the time of the convolution's node in the profile,
and `alone_us`, that of all nodes, with the changes of layout around it. Medians of the runs of a
pass (at least 9, the first 3 not counted), then the smallest over the passes, each a round over
all layers: what another process did to one of them is not in the table.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from _layers import COLUMNS, Layer, conv_model, read_layers, to_row

from ort_optim.kernels.spec import ConvSpec

WARM_UP_RUNS = 3
FEWEST_RUNS = 9
MOST_RUNS = 100
PADS = (1, 1, 1, 1)


def made(channels: tuple[int, int], kernel: tuple[int, int], size: int, **more: object) -> Layer:
    """A layer of no model, on a square image."""
    spec = ConvSpec(*channels, kernel, N=1, H=size, W=size)
    return Layer(ConvSpec(**{**vars(spec), **more}), ("made",), 1)


EXTRA = (
    made((65, 65), (3, 3), 28, pads=PADS),
    made((66, 130), (1, 1), 28),
    made((18, 50), (1, 1), 56),
    made((128, 128), (1, 7), 17, pads=(0, 3, 0, 3)),
    made((128, 128), (7, 1), 17, pads=(3, 0, 3, 0)),
    made((64, 64), (3, 3), 28, pads=PADS, N=8),
    made((256, 256), (3, 3), 14, pads=PADS, group=4),
    made((128, 128), (3, 3), 56, pads=PADS, group=32),
    made((256, 256), (3, 3), 56, pads=PADS, strides=(2, 2), group=32),
    made((64, 64), (3, 3), 28, pads=PADS, group=8),
    made((64, 128), (3, 3), 56, pads=PADS, group=64),
    made((20, 20), (3, 3), 56, pads=PADS, group=20),
    made((18, 18), (3, 3), 56, pads=PADS, group=18),
    made((96, 96), (7, 7), 56, pads=(3, 3, 3, 3), group=96),
    made((96, 96), (1, 9), 56, pads=(0, 4, 0, 4), group=96),
    made((96, 96), (3, 3), 56, pads=(2, 2, 2, 2), dilations=(2, 2), group=96),
    made((64, 32), (4, 4), 32, pads=PADS, strides=(2, 2), transposed=True),
    made((64, 64), (4, 4), 32, pads=PADS, strides=(2, 2), transposed=True, group=64),
)


def measure(layer: Layer, seconds: float, folder: Path) -> tuple[float, float]:
    """(conv_us, alone_us) of one pass."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    model = conv_model([layer.spec]).SerializeToString()
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    x = np.random.default_rng(1).standard_normal(shape, np.float32)
    runs, deadline = 0, time.perf_counter() + seconds
    while runs < FEWEST_RUNS or (runs < MOST_RUNS and time.perf_counter() < deadline):
        session.run(None, {"x": x})
        runs += 1
    profile = Path(session.end_profiling())
    times: dict[str, list[float]] = {}
    for event in json.loads(profile.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = f"{event['args']['op_name']} {event['name']}"
            times.setdefault(key, []).append(event["dur"])
    profile.unlink()
    nodes = {key: statistics.median(us[WARM_UP_RUNS:]) for key, us in times.items()}
    return sum(us for key, us in nodes.items() if "Conv" in key.split()[0]), sum(nodes.values())


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.1, help="of runs of a layer in a pass")
    args = parser.parse_args()
    layers = [*read_layers(), *EXTRA]
    best: dict[ConvSpec, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.passes):
            for layer in layers:
                conv, alone = measure(layer, args.seconds, Path(folder))
                before = best.get(layer.spec, (conv, alone))
                best[layer.spec] = min(conv, before[0]), min(alone, before[1])
            print(f"pass {number + 1} of {args.passes}", flush=True)
    with args.out.open("w", newline="") as lines:
        columns = [c for c in COLUMNS if c not in ("class", "count", "models")]
        writer = csv.DictWriter(
            lines, [*columns, "conv_us", "alone_us"], lineterminator="\n", extrasaction="ignore"
        )
        writer.writeheader()
        for layer in layers:
            conv, alone = best[layer.spec]
            writer.writerow({**to_row(layer), "conv_us": conv, "alone_us": alone})
    return 0


if __name__ == "__main__":
    sys.exit(main())
