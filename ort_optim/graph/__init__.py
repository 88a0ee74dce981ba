"""The model as a document: load, repair, view, merge, save.

load.py      a file to a ModelProto, or one line that says what is wrong with it
repair.py    what loading can put right: order, names, imports, weights among the inputs
weights.py   the bytes of constant tensors: inline, external, sparse
walk.py      all graphs, all constant tensors of a model
skeleton.py  a model without the data of its weights
view.py      the onnx-graphsurgeon view on which passes work
merge.py     the view's changes back into protos, losslessly
shapes.py    shape inference that no model can make expensive
annotation.py  its results on the view
save.py      a ModelProto to a file, whole or not at all
"""

from ort_optim.graph.load import LoadedModel, load_model

__all__ = ["LoadedModel", "load_model"]
