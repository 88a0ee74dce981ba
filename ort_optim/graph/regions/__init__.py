"""Groups of nodes that code of ours may compute, as standard ONNX.

grouping.py   which nodes become a region;  partition.py convex groups on plain numbers
wiring.py     who makes and who reads what
region.py     what goes in and out of a region, which constants are weights
naming.py     the name of a body, a hash of what it computes
form.py       regions as calls of model-local functions
reading.py    the calls in a file, and whether they are what they say
storage.py    which weights are better kept in a file of their own
"""

from ort_optim.graph.regions.form import DOMAIN, Tiling, wrap
from ort_optim.graph.regions.grouping import Grouping, LeftOut, group
from ort_optim.graph.regions.naming import Formal
from ort_optim.graph.regions.reading import (
    Call,
    SoundCalls,
    calls,
    sound_calls,
    verify_name,
)
from ort_optim.graph.regions.region import Region
from ort_optim.graph.regions.storage import weights_apart

__all__ = [
    "DOMAIN",
    "Call",
    "Formal",
    "Grouping",
    "LeftOut",
    "Region",
    "SoundCalls",
    "Tiling",
    "calls",
    "group",
    "sound_calls",
    "verify_name",
    "weights_apart",
    "wrap",
]
