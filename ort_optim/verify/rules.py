"""What ops ask of their inputs' values: data for `uses`, one line per op and input.

A rule says how values that end at this input of this op should be drawn. Kinds:

    index    integers in [0, n), n a dimension of another input (`of`, `axis`)
    length   integers in [1, n], the first of them n; n as for index
    range    numbers in [low, high]
    mask     ones, then zeros along the last axis
    one      all ones: sizes that change nothing (Expand, Tile)
    reshape  -1 first, then ones: a target shape that fits every tensor
    axes     0, 1, 2, ...
    like     the dimensions of another input (`of`)
    split    equal parts of a dimension of another input
    pads     0 or 1, none before or after batch and channels
    batched  a shape whose first dimension is that of another input
    corners  boxes (y1, x1, y2, x2) within the unit square
    compared the constant on the other side of a comparison, or another value
    added    (no rule's: what `uses` reports of a tensor that goes straight into an Add)
    keys     the strings or numbers that a vocabulary attribute lists
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "index",
    "length",
    "range",
    "mask",
    "one",
    "reshape",
    "axes",
    "like",
    "split",
    "pads",
    "batched",
    "corners",
    "compared",
    "keys",
    "added",
]


@dataclass(frozen=True)
class Rule:
    """How to draw the values of one input of one op.

    `of` is the input whose dimension `axis` limits the values; `axis` may be the name of an
    integer attribute, whose default is then `axis_default`; None is the smallest dimension.
    """

    kind: Kind
    low: float = float("-inf")
    high: float = float("inf")
    of: int | None = None
    axis: int | str | None = 0
    axis_default: int = 0


def _range(low: float, high: float) -> Rule:
    return Rule("range", low, high)


_ROWS = Rule("index", of=0)
_ALONG_AXIS = Rule("index", of=0, axis="axis")
_POSITIVE = _range(0.1, 2.0)
_SCALE = _range(0.01, 0.05)
_ZERO_POINT = _range(0, 10)
_UNIT = _range(0.0, 1.0)
_OPEN_INTERVAL = _range(-0.9, 0.9)
_COMPARED = Rule("compared")
_AXES = Rule("axes")
_FIRST_AXIS = _range(0, 0)

REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]

RULES: Mapping[str, Mapping[int, Rule]] = {
    **{f"Reduce{name}": {1: _AXES} for name in REDUCTIONS},
    # look-ups
    "Gather": {1: _ALONG_AXIS},
    "GatherElements": {1: _ALONG_AXIS},
    "GatherND": {1: Rule("index", of=0, axis=None)},
    "GatherBlockQuantized": {1: _ALONG_AXIS},
    "ScatterElements": {1: _ALONG_AXIS},
    "Scatter": {1: _ALONG_AXIS},
    "ScatterND": {1: Rule("index", of=0, axis=None)},
    "ArrayFeatureExtractor": {1: Rule("index", of=0, axis=-1)},
    "EmbedLayerNormalization": {
        0: Rule("index", of=2),
        1: Rule("index", of=4),
        7: Rule("mask"),
    },
    "OneHot": {1: _range(3, 6)},
    "NegativeLogLikelihoodLoss": {1: Rule("index", of=0, axis=1)},
    "SoftmaxCrossEntropyLoss": {1: Rule("index", of=0, axis=1)},
    "MaxUnpool": {1: Rule("index", of=0, axis=-1), 2: Rule("like", of=0)},
    "SequenceAt": {1: _range(0, 0)},
    "SequenceInsert": {2: _range(0, 0)},
    "SequenceErase": {1: _range(0, 0)},
    "RoiAlign": {1: Rule("corners"), 2: _ROWS},
    # lengths
    "LSTM": {4: Rule("length", of=0)},
    "GRU": {4: Rule("length", of=0)},
    "RNN": {4: Rule("length", of=0)},
    "ReverseSequence": {1: Rule("length", of=0, axis="time_axis")},
    # sizes
    "Reshape": {1: Rule("reshape")},
    "Expand": {1: Rule("one")},
    "Tile": {1: Rule("one")},
    "ConstantOfShape": {0: _range(1, 3)},
    "RandomNormal": {0: _range(1, 3)},
    "Range": {0: _range(0, 1), 1: _range(3, 6), 2: _range(1, 1)},
    "TopK": {1: _range(1, 3)},
    "Resize": {1: _UNIT, 2: Rule("one"), 3: Rule("like", of=0)},
    "Upsample": {1: Rule("one")},
    "Slice": {1: _range(0, 0), 2: _range(1, 2), 3: _AXES, 4: _range(1, 1)},
    "Pad": {1: Rule("pads"), 3: _AXES},
    "Unsqueeze": {1: _AXES},
    "Squeeze": {1: _AXES},
    "Split": {1: Rule("split", of=0, axis="axis")},
    "SplitToSequence": {1: Rule("split", of=0, axis="axis")},
    "CenterCropPad": {1: _range(2, 4)},
    "Col2Im": {1: _range(5, 5), 2: _range(1, 1)},
    "AffineGrid": {1: Rule("batched", of=0)},
    "CumSum": {1: _FIRST_AXIS},
    "CumProd": {1: _FIRST_AXIS},
    "Trilu": {1: _range(0, 1)},
    "Loop": {0: _range(1, 4)},
    "HannWindow": {0: _range(4, 10)},
    "HammingWindow": {0: _range(4, 10)},
    "BlackmanWindow": {0: _range(4, 10)},
    "DFT": {1: _range(4, 8), 2: _range(1, 1)},
    "STFT": {1: _range(2, 4), 3: _range(4, 8)},
    "MelWeightMatrix": {
        0: _range(4, 8),
        1: _range(8, 16),
        2: _range(8000, 16000),
        3: _range(0, 10),
        4: _range(3000, 4000),
    },
    "NonMaxSuppression": {
        0: Rule("corners"),
        1: _range(0.01, 0.99),
        2: _range(2, 5),
        3: _range(0.3, 0.7),
        4: _range(0.01, 0.3),
    },
    "GroupQueryAttention": {5: _range(1, 1), 6: _range(2, 2)},
    "BeamSearch": {1: _range(20, 20), 2: _range(1, 1), 3: _range(2, 2), 4: _range(1, 1)},
    "GreedySearch": {1: _range(20, 20), 2: _range(1, 1)},
    # where a function is defined, finite and steep nowhere
    "Log": {0: _POSITIVE},
    "Sqrt": {0: _POSITIVE},
    "Reciprocal": {0: _POSITIVE},
    "Acos": {0: _OPEN_INTERVAL},
    "Asin": {0: _OPEN_INTERVAL},
    "Atanh": {0: _OPEN_INTERVAL},
    "Acosh": {0: _range(1.1, 4.0)},
    "Pow": {1: _range(1, 3)},
    "Div": {1: _range(1, 4)},
    "Mod": {1: _range(1, 4)},
    "BitShift": {1: _range(0, 3)},
    "GridSample": {1: _range(-1.0, 1.0)},
    "Clip": {1: _range(-1.0, -0.5), 2: _range(0.5, 1.0)},
    "BatchNormalization": {1: _POSITIVE, 4: _POSITIVE},
    "Dropout": {1: _range(0.1, 0.5), 2: _range(0, 0)},
    "Bernoulli": {0: _UNIT},
    # quantization
    "QuantizeLinear": {1: _SCALE, 2: _ZERO_POINT},
    "DequantizeLinear": {1: _SCALE, 2: _ZERO_POINT},
    "QLinearConv": {1: _SCALE, 2: _ZERO_POINT, 4: _SCALE, 6: _SCALE, 7: _ZERO_POINT},
    "QLinearMatMul": {1: _SCALE, 2: _ZERO_POINT, 4: _SCALE, 6: _SCALE, 7: _ZERO_POINT},
    "ConvInteger": {2: _ZERO_POINT, 3: _ZERO_POINT},
    "MatMulInteger": {2: _ZERO_POINT, 3: _ZERO_POINT},
    "QAttention": {3: _SCALE, 4: _SCALE, 5: Rule("mask"), 6: _ZERO_POINT, 7: _ZERO_POINT},
    "Attention": {3: Rule("mask")},
    "Where": {0: Rule("mask")},
    # comparisons that steer an If
    "Equal": {0: _COMPARED, 1: _COMPARED},
    "Greater": {0: _COMPARED, 1: _COMPARED},
    "GreaterOrEqual": {0: _COMPARED, 1: _COMPARED},
    "Less": {0: _COMPARED, 1: _COMPARED},
    "LessOrEqual": {0: _COMPARED, 1: _COMPARED},
    # vocabularies
    "DictVectorizer": {0: Rule("keys")},
    "LabelEncoder": {0: Rule("keys")},
    "CategoryMapper": {0: Rule("keys")},
    "OneHotEncoder": {0: Rule("keys")},
    "TfIdfVectorizer": {0: Rule("keys")},
}
"""By op type, then input index."""

VOCABULARIES = (
    "int64_vocabulary",
    "string_vocabulary",
    "keys_strings",
    "keys_int64s",
    "keys_floats",
    "cats_strings",
    "cats_int64s",
    "pool_strings",
    "pool_int64s",
)
"""Attributes that list what an op of `ai.onnx.ml` knows."""

CARRIERS: Mapping[str, tuple[int, ...]] = {
    "Identity": (0,),
    "Cast": (0,),
    "CastLike": (0,),
    "Dropout": (0,),
    "Unsqueeze": (0,),
    "Squeeze": (0,),
    "Reshape": (0,),
    "Flatten": (0,),
    "Transpose": (0,),
    "Expand": (0,),
    "Slice": (0,),
    "Gather": (0,),
    "Split": (0,),
    "Tile": (0,),
    "Where": (1, 2),
    "Max": (0, 1),
    "Min": (0, 1),
    "Optional": (0,),
    "OptionalGetElement": (0,),
}
"""Inputs whose values come out of the op as they went in: uses are looked for behind it."""

SHAPE_KEEPERS = frozenset({"Identity", "Cast", "CastLike", "Dropout", "Relu", "QuantizeLinear"})
"""Ops with the shape of input 0: what a weight behind them demands of a dimension holds before."""

AXIS_DEMANDS: Mapping[tuple[str, int], tuple[int, int, int]] = {
    ("ConvTranspose", 0): (1, 1, 0),
    ("MatMul", 0): (-1, 1, -2),
    ("BatchNormalization", 0): (1, 1, 0),
    ("InstanceNormalization", 0): (1, 1, 0),
    ("LayerNormalization", 0): (-1, 1, -1),
    ("LSTM", 0): (2, 1, 2),
    ("GRU", 0): (2, 1, 2),
    ("RNN", 0): (2, 1, 2),
    ("LSTM", 5): (2, 2, 2),
    ("GRU", 5): (2, 2, 2),
    ("RNN", 5): (2, 2, 2),
}
"""(op, input): (axis of that input, index of the weight, axis of the weight that must equal it)."""
