"""From a region to machine code, in the order in which a region goes through it.

parse.py      the nodes of a body -> layers, with operators/ and scope.py; which nodes are eligible
layers.py     what a layer is
fuse.py       functions and sums move into the layers that make what they read; with patterns.py
placement.py  concats and slices that are views
lower.py      layers and templates -> steps, with emit.py; draft.py holds them
build.py      kernels -> code files: cache.py, code.py, folder.py; worker.py, llvm.py, image.py
draft.py      steps and code files -> plan.py, with program.py and slots.py
"""
