"""The model as a document: load, repair, view, merge, save.

load.py        a file to a ModelProto, or one line that says what is wrong with it
repair.py      what loading can put right: order, names, imports, weights among the inputs
view.py        the onnx-graphsurgeon view on which passes work
importing.py   a ModelProto to its view
annotation.py  dtypes and shapes on the view
merge.py       the view's changes back into protos, losslessly
save.py        a ModelProto to a file, whole or not at all

weights.py     the bytes of constant tensors: inline, external, sparse
walk.py        all graphs and all constant tensors of a model
skeleton.py    a model without the data of its weights
shapes.py      shape inference that no model can make expensive
order.py       topological order;  scopes.py, names.py  names that are unique
functions.py   model-local functions inlined
leftovers.py   names of temporary files, and what killed runs left
inspection.py, stats.py, macs.py  the facts of a model
"""

from ort_optim.graph.load import LoadedModel, load_model

__all__ = ["LoadedModel", "load_model"]
