"""The two ways torch writes ONNX, as people use them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn


def torchscript(
    net: nn.Module | torch.jit.ScriptModule,
    example: tuple[Tensor, ...],
    *,
    opset: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]] | None = None,
    initializers_as_inputs: bool = False,
) -> onnx.ModelProto:
    """Exports through the TorchScript-based exporter (`dynamo=False`).

    Nothing is tidied up: batch norms stay (PRESERVE leaves them unfused in evaluation mode) and
    constants are not folded, as in the many published files made with these settings.
    """
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            example,
            stream,
            dynamo=False,
            opset_version=opset,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=dict(dynamic_axes or {}),
            keep_initializers_as_inputs=initializers_as_inputs,
        )
    return onnx.load_from_string(stream.getvalue())


def dynamo(
    net: nn.Module,
    example: tuple[Tensor, ...],
    *,
    opset: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_shapes: Sequence[Mapping[int, Any]],
) -> onnx.ModelProto:
    """Exports through `torch.export` (`dynamo=True`) with its own graph optimizer on, its default.

    The stack traces that it stores with every node are dropped: they hold the paths of the machine
    that made the file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net,
            example,
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(dynamic_shapes),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        kept = [entry for entry in node.metadata_props if "stack_trace" not in entry.key]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    return model
