"""What machine is this? Facts about the CPU, its caches, memory and GPUs, as one `Target`.

    detect          this machine, in a few milliseconds
    load_target     "native", a shipped name, or a file of facts: any machine can be played
    measure         peak GFLOP/s and memory bandwidth, measured once and cached
    to_json, from_json

Start reading in `target.py`, then `detection.py`.
"""

from .catalog import load_target, shipped_targets
from .detection import detect, usable_cores
from .measurement import measure, with_cached_figures
from .serialization import SCHEMA_VERSION, from_json, to_json
from .target import NATIVE, Cache, Gpu, Target

__all__ = [
    "NATIVE",
    "SCHEMA_VERSION",
    "Cache",
    "Gpu",
    "Target",
    "detect",
    "from_json",
    "load_target",
    "measure",
    "shipped_targets",
    "to_json",
    "usable_cores",
    "with_cached_figures",
]
