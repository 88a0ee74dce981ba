"""All convolution templates.

TEMPLATES       in the order in which they are listed and tried
find_template   by name
"""

from __future__ import annotations

from ort_optim.kernels.base import ConvTemplate
from ort_optim.kernels.depthwise import depthwise
from ort_optim.kernels.direct import Direct
from ort_optim.kernels.first_layer import FirstLayer
from ort_optim.kernels.pointwise import Pointwise
from ort_optim.kernels.winograd import winograd_f23, winograd_f43

TEMPLATES: tuple[ConvTemplate, ...] = (
    winograd_f43,
    winograd_f23,
    depthwise,
    Pointwise(),
    FirstLayer(),
    Direct(),  # last: it takes every convolution
)

_BY_NAME = {each.name: each for each in TEMPLATES}


def find_template(name: str) -> ConvTemplate | None:
    """The template of this name, None if there is none."""
    return _BY_NAME.get(name)
