"""What is known of sizes that only the run time knows.

symbolic.py     sizes as polynomials over the names of dimensions
facts.py        what one walk over the graph finds: shapes, and values of small integer tensors
inference.py    shapes of outputs where onnx's own inference gives up
values.py       values of shape arithmetic, element by element; arithmetic.py its rules
slices.py, windows.py   what Slice, Conv and pooling make of a symbolic size
"""
