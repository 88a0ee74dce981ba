"""The name of a region: a hash of what it computes and of how, and of nothing else.

body_name       R_<128 bits> of a region;  raises UnfitError for one that no region has
Formal          an input of a body, as far as its name depends on it
unfit           why a node can't be part of a body
operator_sets   the versions that a list of imports states

The hash is taken of an encoding of our own, since protobuf's is not canonical. An integer is
`i<decimal>;`, bytes and text (UTF-8) are `b<length>:<bytes>`. A list is `l<length>:` and its
items. The body is the list of

    the text "ort_optim region 1"
    [domain, version] of each operator set that a node is of, sorted; "ai.onnx" is ""
    [1 if the input is constant at each call else 0, element type, dims if constant] of each input
    each node: [domain, operator, attributes, inputs, outputs]
    the numbers of the outputs
    the lists of texts that say how it is tiled

Attributes are [name, type, value], sorted by name; a float is the bytes of its little-endian
binary32, a tensor is [element type, dims, raw bytes]. Tensors of the body are numbers: the inputs
from 1, then what the nodes give in order; 0 stands for one left out. Names of tensors and nodes,
doc strings, metadata, the values of weights and the shapes of activations are not in it. ONNX
Runtime knows a custom operator by its name alone, so what its code depends on must be in the name.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

from onnx import AttributeProto, NodeProto, OperatorSetIdProto, TensorProto, numpy_helper

from ort_optim.graph.regions.region import EMBEDDED_BYTES
from ort_optim.graph.walk import STANDARD_DOMAINS
from ort_optim.graph.weights import is_external, size_bytes

PREFIX = "R_"
MARK = "ort_optim region 1"
HASH_DIGITS = 32  # hexadecimal: 128 bits
MOST_NODES = 20_000  # of a body; more is no network that people run


class UnfitError(ValueError):
    """A body, or a part of it, that no region has; the message says why in a few words."""


@dataclass(frozen=True)
class Formal:
    """An input of a body: its name there, whether it is constant, its TensorProto.DataType, and the
    dimensions of a constant."""

    name: str
    is_constant: bool
    element_type: int
    dims: tuple[int, ...] = ()


def body_name(
    nodes: Sequence[NodeProto],
    inputs: Sequence[Formal],
    outputs: Sequence[str],
    imports: Mapping[str, int],
    tiling: Sequence[Sequence[str]] = (),
) -> str:
    """The name of a body under the model's operator sets. Raises UnfitError with the reason."""
    if len(nodes) > MOST_NODES:
        raise UnfitError(f"more than {MOST_NODES} nodes")
    numbers: dict[str, int] = {"": 0}
    for formal in inputs:
        _number(numbers, _text(formal.name))
    encoded_nodes = [_node(node, numbers) for node in nodes]
    domains = sorted({each[0] for each in encoded_nodes})
    for domain in domains:
        if domain.decode() not in imports:
            raise UnfitError(
                f"the model imports no, or no one, operator set of '{_shown(domain.decode())}'"
            )
    made = {numbers[formal.name] for formal in inputs}
    given = [numbers.get(_text(name), 0) for name in outputs]
    if not given or 0 in given or made.intersection(given) or len(set(given)) < len(given):
        raise UnfitError("outputs that are missing, inputs, or given twice")
    parts: list[bytes] = []
    _encode(
        [
            MARK.encode(),
            [[domain, imports[domain.decode()]] for domain in domains],
            [[int(f.is_constant), f.element_type, list(f.dims)] for f in inputs],
            encoded_nodes,
            given,
            [[text.encode() for text in texts] for texts in tiling],
        ],
        parts,
    )
    return PREFIX + hashlib.sha256(b"".join(parts)).hexdigest()[:HASH_DIGITS]


def operator_sets(imports: Iterable[OperatorSetIdProto]) -> dict[str, int]:
    """Domain to version; "ai.onnx" is "". Domains imported in two versions are left out."""
    found: dict[str, int] = {}
    for each in imports:
        domain = plain_domain(each.domain)
        found[domain] = each.version if found.get(domain, each.version) == each.version else 0
    return {domain: version for domain, version in found.items() if version > 0}


def plain_domain(domain: str) -> str:
    """The domain by one of its names: "" for ONNX's own."""
    return "" if domain in STANDARD_DOMAINS else domain


def unfit(node: NodeProto) -> str | None:
    """Why a node can't be part of a body, None if it can."""
    try:
        _operator(node)
    except UnfitError as error:
        return str(error)
    return None


def _number(numbers: dict[str, int], name: str) -> int:
    if not name or name in numbers:
        raise UnfitError(f"tensor '{_shown(name)}' is given twice, or has no name")
    numbers[name] = len(numbers)
    return numbers[name]


def _node(node: NodeProto, numbers: dict[str, int]) -> list[Any]:
    operator = _operator(node)
    try:
        sources = [numbers[name] for name in node.input]
    except KeyError as missing:
        name = missing.args[0]
        raise UnfitError(f"tensor '{_shown(name)}' is read before it is made") from None
    results = [_number(numbers, _text(name)) if name else 0 for name in node.output]
    return [*operator, sources, results]


def _operator(node: NodeProto) -> list[Any]:
    """Domain, operator and attributes."""
    if node.overload:
        raise UnfitError("an overloaded function is called")
    op = _text(node.op_type)
    if not op:
        raise UnfitError("a node has no operator")
    attributes = [_attribute(attribute) for attribute in node.attribute]
    attributes.sort(key=itemgetter(0))
    for one, other in pairwise(attributes):
        if one[0] == other[0]:
            raise UnfitError(f"attribute '{_shown(one[0].decode())}' is given twice")
    return [plain_domain(_text(node.domain)).encode(), op.encode(), attributes]


def _attribute(attribute: AttributeProto) -> list[Any]:
    name, kind = _text(attribute.name), attribute.type
    if attribute.ref_attr_name:
        raise UnfitError(f"attribute '{_shown(name)}' refers to one of the call")
    value: Any
    if kind == AttributeProto.INT:
        value = attribute.i
    elif kind == AttributeProto.INTS:
        value = list(attribute.ints)
    elif kind == AttributeProto.FLOAT:
        value = struct.pack("<f", attribute.f)
    elif kind == AttributeProto.STRING:
        value = attribute.s
    elif kind == AttributeProto.FLOATS:
        value = struct.pack(f"<{len(attribute.floats)}f", *attribute.floats)
    elif kind == AttributeProto.STRINGS:
        value = list(attribute.strings)
    elif kind == AttributeProto.TENSOR:
        value = _tensor(attribute.t)
    else:
        raise UnfitError(f"attribute '{_shown(name)}' is of a kind that no region has")
    return [name.encode(), kind, value]


def _tensor(tensor: TensorProto) -> list[Any]:
    kind = tensor.data_type
    if is_external(tensor):
        raise UnfitError("a constant whose data is external")
    if kind in (TensorProto.UNDEFINED, TensorProto.STRING) or kind not in _ELEMENT_TYPES:
        raise UnfitError("a constant of an element type that no region has")
    dims = list(tensor.dims)
    if any(dim < 0 for dim in dims) or (size := size_bytes(tensor)) > EMBEDDED_BYTES:
        raise UnfitError(f"a constant of more than {EMBEDDED_BYTES} bytes, or of no shape")
    raw = tensor.raw_data
    if not tensor.HasField("raw_data"):
        try:
            raw = numpy_helper.to_array(tensor).tobytes()
        except (ValueError, TypeError, OverflowError):  # too little data, or of the wrong field
            raise UnfitError("a constant whose data does not fit its shape") from None
    elif len(raw) != size:
        raise UnfitError("a constant whose data does not fit its shape")
    return [kind, dims, raw]


_ELEMENT_TYPES = frozenset(TensorProto.DataType.values())


def _text(name: str) -> str:
    """The name. protobuf hands text that is no UTF-8 out as bytes, or refuses it."""
    if not isinstance(name, str):
        raise UnfitError("a name that is not UTF-8")
    return name


def _shown(name: object) -> str:
    text = name if isinstance(name, str) else repr(name)
    return text if len(text) <= 60 and text.isprintable() else f"{text[:60]!a}..."


def _encode(value: Any, parts: list[bytes]) -> None:
    if isinstance(value, int):
        parts.append(b"i%d;" % value)
    elif isinstance(value, bytes):
        parts.append(b"b%d:%b" % (len(value), value))
    else:
        parts.append(b"l%d:" % len(value))
        for each in value:
            _encode(each, parts)
