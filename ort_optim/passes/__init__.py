"""The rewrite passes, in the order they run. The order within a round is explained beside it."""

from ort_optim.passes import (
    affine,
    batch_norm,
    clamp,
    constant_folding,
    dead_code,
    hard_activations,
    linear,
)
from ort_optim.passes.base import Pass

PASSES: tuple[Pass, ...] = (
    dead_code.PASS,  # first and cheap: nothing later looks at what nobody needs
    constant_folding.PASS,  # before all that ask for constant weights, axes and shapes
    clamp.PASS,  # before hard_activations, which knows Clip only
    hard_activations.PASS,  # before affine, which would take their last factor into the next layer
    batch_norm.PASS,  # before affine: a normalization between a layer and a factor goes first
    affine.PASS,
    linear.PASS,  # after affine, which takes what it can into the weights
)
