"""ONNX Runtime sessions that compute a model's regions in NumPy: the oracle of all templates.

    session = ReferenceSession("model.onnx")      # an onnxruntime.InferenceSession
    session.run(None, feeds)

Nothing is compiled, so this also runs where nothing may be; it is slow. Regions are custom ops in
Python, which onnxruntime-extensions (extra `reference`) brings into ONNX Runtime. Three facts about
it shape what is here:

(1) An operator that is registered once is there for the life of the process, in all sessions that
    come. So operators stand for nothing but a number of inputs and outputs; which region of which
    session is meant, the node says in its attributes.
(2) Operators of one domain lie in one array, which moves when another is added, away from the
    sessions that use it. So each operator has a domain of its own.
(3) An exception in an operator ends the process. So it is kept and raised when the run is over.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, helper

from ort_optim.errors import InputError
from ort_optim.graph import load_model
from ort_optim.graph.regions import DOMAIN
from ort_optim.runtime.reference_regions import Array, Region, find_regions
from ort_optim.runtime.session import CPU, Model, log
from ort_optim.runtime.stats import REGISTRATION, entry, note

Result = TypeVar("Result")

OPERATOR = "Region"
PROTOBUF_CHOICE = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
EXTRA = "reference"
FOLDER_ENTRY = "session.model_external_initializers_file_folder_path"
"""Where ONNX Runtime looks for the external data of a model that it gets as bytes."""


class ReferenceSession(ort.InferenceSession):  # type: ignore[misc]
    """`onnxruntime.InferenceSession` with the regions of its model computed in NumPy.

    Each convolution is computed as its template and tile would, wherever the model was made for;
    `ort_optim.stats` says which regions are left to ONNX Runtime instead, and why. Runs of one
    session follow each other, whatever threads they come from.

    Raises InputError where the model can't be read or the extra is not installed. A run raises
    OrtOptimError where its inputs have sizes that a region was not made for.
    """

    def __init__(self, model: Model, sess_options: ort.SessionOptions | None = None) -> None:
        options = ort.SessionOptions() if sess_options is None else sess_options
        if entry(options, REGISTRATION) is not None:
            raise InputError(
                "these session options are those of another model: give fresh ones to each model"
            )
        contents, folder = _read(model)
        self._running = threading.RLock()
        self._failure: BaseException | None = None
        token = secrets.token_hex(16)  # that no file can know
        _SESSIONS[token] = self
        self._regions, left = find_regions(contents)
        for name, reason in left.items():
            log.warning("region %s is left to ONNX Runtime: %s", name, reason)
        note(options, None, (), left)
        if folder is not None and entry(options, FOLDER_ENTRY) is None:
            options.add_session_config_entry(FOLDER_ENTRY, os.fspath(folder))
        if self._regions:
            contents = _with_operators(contents, self._regions, token)
            options.register_custom_ops_library(_extensions().get_library_path())
        serialized = contents.SerializeToString()
        # Folding of constants may run a region before the session is there.
        self._run(lambda: super(ReferenceSession, self).__init__(serialized, options, [CPU]))

    def run(self, *arguments: Any, **named: Any) -> Any:
        """As `onnxruntime.InferenceSession`."""
        return self._run(lambda: super(ReferenceSession, self).run(*arguments, **named))

    def run_with_ort_values(self, *arguments: Any, **named: Any) -> Any:
        """As `onnxruntime.InferenceSession`."""
        run = super().run_with_ort_values
        return self._run(lambda: run(*arguments, **named))

    def run_with_iobinding(self, *arguments: Any, **named: Any) -> Any:
        """As `onnxruntime.InferenceSession`."""
        run = super().run_with_iobinding
        return self._run(lambda: run(*arguments, **named))

    def run_async(self, *arguments: Any, **named: Any) -> Any:
        """Not to be had: nobody would learn of what goes wrong in a region."""
        raise InputError("a reference session has no run_async: call run")

    def _run(self, action: Callable[[], Result]) -> Result:
        """(3): an action with what its regions raise."""
        with self._running:
            self._failure = None
            try:
                found = action()
            except Exception as error:
                raise (self._failure or error) from None
            if self._failure is not None:
                raise self._failure
            return found

    def _compute(self, name: str, inputs: Sequence[Array]) -> list[Array] | None:
        """The outputs of a region, None once something went wrong in this run."""
        if self._failure is None:
            try:
                return self._regions[name].compute(inputs)
            except BaseException as error:  # an interrupt would end the process, too
                self._failure = error
        return None


_SESSIONS: WeakValueDictionary[str, ReferenceSession] = WeakValueDictionary()
_REGISTERING = threading.Lock()


def _read(model: Model) -> tuple[ModelProto, Path | None]:
    """The model, and the folder of its external data where that is known."""
    if isinstance(model, ModelProto):
        return model, None
    if not isinstance(model, bytes):
        loaded = load_model(Path(model))
        return loaded.model, loaded.folder
    try:
        return onnx.load_model_from_string(model), None
    except Exception as error:  # protobuf's own, of several classes
        raise InputError(f"the model can't be parsed: {error}") from error


def _with_operators(model: ModelProto, regions: Mapping[str, Region], session: str) -> ModelProto:
    """A copy of the model in which calls of these regions are nodes of our operators."""
    found = ModelProto()
    found.CopyFrom(model)
    domains = {}
    for node in found.graph.node:
        if node.domain == DOMAIN and node.op_type in regions:
            domains[_make_operator(node, session)] = 1
    del found.functions[:]
    found.functions.extend(
        each for each in model.functions if each.domain != DOMAIN or each.name not in regions
    )
    found.opset_import.extend(helper.make_opsetid(domain, 1) for domain in domains)
    # ONNX Runtime infers nothing behind an operator of ours, and would believe what is said there.
    del found.graph.value_info[:]
    return found


def _make_operator(node: NodeProto, session: str) -> str:
    """Let a call be a node of the operator of its arity; the domain of that."""
    domain = _operator(len(node.input), len(node.output))
    name = node.op_type
    node.domain, node.op_type = domain, OPERATOR
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("region", name))
    node.attribute.append(helper.make_attribute("session", session))
    return domain


def _operator(inputs: int, outputs: int) -> str:
    """The domain of the operator with so many inputs and outputs, registered if it is new."""
    with _REGISTERING:
        return _register(inputs, outputs)


@cache
def _register(inputs: int, outputs: int) -> str:
    extensions = _extensions()
    domain = f"{DOMAIN}.{EXTRA}.{inputs}.{outputs}"
    number = extensions.PyCustomOpDef.dt_float
    text = extensions.PyCustomOpDef.dt_string

    def compute(*arrays: Array, region: str, session: str) -> tuple[Array, ...]:
        owner = _SESSIONS.get(session)
        found = None if owner is None else owner._compute(region, arrays)
        if found is None:  # of a run that has failed; nobody sees this
            found = [np.full((1, 1, 1, 1), np.nan, np.float32)] * outputs
        return tuple(found)

    extensions.onnx_op(
        op_type=f"{domain}::{OPERATOR}",
        inputs=[number] * inputs,
        outputs=[number] * outputs,
        attrs={"region": text, "session": text},
    )(compute)
    return domain


def _extensions() -> ModuleType:
    """The library. Importing it makes this process's children run protobuf in Python, which is
    slow and knows other errors: that is taken back."""
    before = os.environ.get(PROTOBUF_CHOICE)
    try:
        import onnxruntime_extensions
    except ImportError as error:
        raise InputError(
            f"onnxruntime-extensions is missing: pip install 'ort_optim[{EXTRA}]'"
        ) from error
    if before is None:
        os.environ.pop(PROTOBUF_CHOICE, None)
    else:
        os.environ[PROTOBUF_CHOICE] = before
    found: ModuleType = onnxruntime_extensions
    return found
