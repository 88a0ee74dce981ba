"""The rewrite passes, in the order they run. The order within a round is explained beside it."""

from ort_optim.passes import (
    affine,
    batch_norm,
    cast_chain,
    clamp,
    concat_chain,
    constant_chain,
    constant_folding,
    constant_nodes,
    dead_code,
    hard_activations,
    identity,
    linear,
    neutral_operand,
    padding,
    repeated_op,
    reshape_chain,
    same_shape,
    slice_chain,
    transpose_chain,
)
from ort_optim.passes.base import Pass

PASSES: tuple[Pass, ...] = (
    dead_code.PASS,  # first and cheap: nothing later looks at what nobody needs
    constant_nodes.PASS,  # from here on a constant has one form
    identity.PASS,
    same_shape.PASS,
    neutral_operand.PASS,
    repeated_op.PASS,
    cast_chain.PASS,
    transpose_chain.PASS,  # before reshape_chain, which takes Transposes that move nothing
    reshape_chain.PASS,
    slice_chain.PASS,
    concat_chain.PASS,
    constant_chain.PASS,  # before affine: one constant is folded into a layer rather than two
    constant_folding.PASS,  # before all that ask for constant weights, axes and shapes
    clamp.PASS,  # before hard_activations, which knows Clip only
    hard_activations.PASS,  # before affine, which would take their last factor into the next layer
    batch_norm.PASS,  # before affine: a normalization between a layer and a factor goes first
    affine.PASS,
    linear.PASS,  # after affine, which takes what it can into the weights
    padding.PASS,
)
