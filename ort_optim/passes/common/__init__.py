"""What several passes share.

match.py, edits.py         questions about the graph; small changes to it
constants.py               which nodes depend on constants only; evaluation.py runs them
layers.py, folding.py      Conv, ConvTranspose, Gemm, MatMul as W x + b, and what goes into W and b
scalars.py, moments.py     constants in arithmetic; mean and variance written out
movement.py                axes, permutations, windows and targets, in every operator set
layout.py, min_cut.py      where Transposes can move to, and where the fewest are needed
inlining.py                nodes of a subgraph moved into the graph around it
"""
