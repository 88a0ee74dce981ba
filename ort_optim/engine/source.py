"""Makes a model ready to travel to the worker: its bytes, and where its large tensors lie.

External data, which ORT would look for beside a file that does not exist yet, and the weights of
a heavy model are handed over as blobs that the worker maps into memory. Those that nothing reads
are left out: ONNX Runtime removes such initializers, then misses them when it is given the blobs.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from ort_optim.engine.spill import Spill, can_be_mapped, is_heavy, without_data
from ort_optim.engine.wire import Blob, ModelSource
from ort_optim.graph.order import reads
from ort_optim.graph.walk import inner_tensors
from ort_optim.graph.weights import ByteRange, external_range, is_external, make_inline


def make_source(model: ModelProto, folder: Path, scratch: Path | Spill) -> ModelSource:
    """What `Engine.open` takes for a model whose external data lies in `folder`.

    The weights of a heavy model go to a file in `scratch`, which must outlive the session; models
    that are given the same Spill share it. The model itself stays as it is. Raises InputError
    where `scratch` has no room.
    """
    spill = scratch if isinstance(scratch, Spill) else Spill(scratch)
    odd = any(is_external(t) and not can_be_mapped(t) for t in model.graph.initializer)
    inner = any(is_external(t) for t in inner_tensors(model))
    homes = {tensor.name: folder for tensor in model.graph.initializer if is_external(tensor)}
    known = {info.name for info in (*model.graph.input, *model.graph.output)}
    known.update(name for node in model.graph.node for name in reads(node))
    if is_heavy(model):
        model = without_data(model, spill)
    elif odd or inner or not homes.keys() <= known:
        copy = ModelProto()
        copy.CopyFrom(model)
        model = copy
    blobs = []
    for tensor in list(model.graph.initializer):
        if not is_external(tensor):
            continue
        if tensor.name not in known:
            model.graph.initializer.remove(tensor)
            continue
        home = homes.get(tensor.name, spill.folder)
        if can_be_mapped(tensor):
            blobs.append(_blob(tensor, external_range(tensor, home)))
        else:
            make_inline(tensor, home)
    if inner:
        for tensor in inner_tensors(model):
            if is_external(tensor):
                make_inline(tensor, folder)
    return ModelSource(proto=model.SerializeToString(), blobs=tuple(blobs))


def _blob(tensor: TensorProto, where: ByteRange) -> Blob:
    return Blob(
        tensor.name,
        onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name,
        tuple(tensor.dims),
        where.path,
        where.offset_bytes,
        where.length_bytes,
    )
