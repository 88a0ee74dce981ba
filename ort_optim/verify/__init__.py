"""Does a model still compute the same, and is it not slower?

rules.py        what ops ask of their inputs' values: a table
uses.py         the graph's inputs followed to those ops
dimensions.py   sizes for open dimensions, most likely first
values.py       random values fit for their use
inputs.py       the four above, tried in the engine until the reference accepts them
data.py         the user's own samples instead
metrics.py      error figures of one tensor against another
origins.py      what stands upstream of an output: random ops, coarse types, ops that jump
compare.py      the rules by which outputs agree
replay.py       outputs that jump: a fault or a near tie?
frontier.py     outputs that say little: the inner tensors before them
chance.py       random ops: both models are fed the same tensors
judge.py        Verifier: the verdict on a candidate model
bisect.py       the rewrite at fault among many
layers.py       the first layer at which two models part
speed.py        "slower" decided by a paired bootstrap
shapes.py       shapes of all tensors for given input shapes
"""
