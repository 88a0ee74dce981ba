"""The rewrite passes, in the order they run. The order within a round is explained beside it."""

from ort_optim.passes import affine, batch_norm, constant_folding, dead_code, linear
from ort_optim.passes.base import Pass

PASSES: tuple[Pass, ...] = (
    dead_code.PASS,  # first and cheap: nothing later looks at what nobody needs
    constant_folding.PASS,  # before all that ask for constant weights, axes and shapes
    batch_norm.PASS,  # before affine: a normalization between a layer and a factor goes first
    affine.PASS,
    linear.PASS,  # after affine, which takes what it can into the weights
)
