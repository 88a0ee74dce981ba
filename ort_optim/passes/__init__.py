"""The rewrite passes, in the order they run. The order within a round is explained beside it."""

from ort_optim.passes import (
    affine,
    arange,
    batch_norm,
    cast_chain,
    channel_shuffle,
    cheap_arithmetic,
    clamp,
    common_subexpressions,
    concat_chain,
    concat_zeros,
    constant_chain,
    constant_folding,
    constant_nodes,
    dead_code,
    duplicate_weights,
    gelu,
    global_pooling,
    hard_activations,
    identity,
    leaky_relu,
    linear,
    long_rows,
    lrn,
    neutral_operand,
    output_shape,
    padding,
    repeated_op,
    reshape_chain,
    same_shape,
    scale_shift,
    shape_folding,
    slice_chain,
    slices_to_split,
    soft_activations,
    split_concat,
    standard_operators,
    standardization,
    static_conditions,
    static_sequences,
    transpose_chain,
    transposes,
    zero_states,
)
from ort_optim.passes.base import Pass

PASSES: tuple[Pass, ...] = (
    dead_code.PASS,  # first and cheap: nothing later looks at what nobody needs
    constant_nodes.PASS,  # from here on a constant has one form
    standard_operators.PASS,  # inference stops at what it replaces, and with it most passes
    duplicate_weights.PASS,  # before common_subexpressions, which compares tensors by identity
    common_subexpressions.PASS,  # early: twins would each be rewritten
    leaky_relu.PASS,  # before constant_folding, which would make the Expand of a slope a weight
    constant_folding.PASS,  # before all that ask for constant weights, axes and shapes
    shape_folding.PASS,  # it also finds shapes that onnx's inference misses, for the passes below
    arange.PASS,  # after the folding of those whose length is known
    static_conditions.PASS,  # after the folding that makes conditions and trip counts constant
    static_sequences.PASS,  # after it: an unfolded Loop leaves sequences that are known
    identity.PASS,
    same_shape.PASS,
    neutral_operand.PASS,
    repeated_op.PASS,
    cast_chain.PASS,
    transpose_chain.PASS,  # before reshape_chain, which takes Transposes that move nothing
    channel_shuffle.PASS,  # before reshape_chain, which might join the Reshapes of two of them
    reshape_chain.PASS,
    slice_chain.PASS,
    concat_chain.PASS,
    concat_zeros.PASS,
    split_concat.PASS,
    slices_to_split.PASS,  # after split_concat, which may need no part at all
    constant_chain.PASS,  # before affine: one constant is folded into a layer rather than two
    transposes.PASS,  # before all that fold into a layer what then stands beside it
    clamp.PASS,  # before hard_activations, which knows Clip only
    hard_activations.PASS,  # before affine, which would take their last factor into the next layer
    standardization.PASS,  # before affine and linear, which would take its last factor
    gelu.PASS,
    soft_activations.PASS,
    batch_norm.PASS,  # before affine: a normalization between a layer and a factor goes first
    affine.PASS,
    scale_shift.PASS,  # of what affine could not give to a layer
    linear.PASS,  # after affine, which takes what it can into the weights
    cheap_arithmetic.PASS,  # after standardization, which knows the forms that it changes
    output_shape.PASS,
    padding.PASS,
    global_pooling.PASS,
    lrn.PASS,
    zero_states.PASS,  # late: earlier passes may still want the bias of zeros they find
    long_rows.PASS,  # it waits for all others, which know a constant per channel as it was
)
