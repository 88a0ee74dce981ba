"""From a trained, exported network to the files in `models/` and their entry in the manifest.

Each network NAME gives three files:

* `NAME.onnx`        the model, as its exporter left it
* `NAME.eval.npz`    arrays keyed by the model's input names, shape (N, *input shape without batch),
                     in the input's own element type, so that the file is ready to be fed
* `NAME.labels.npz`  the ground truth for `metrics.METRICS[metric]`, leading axis N again
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from models_lib.metrics import METRICS

MANIFEST_VERSION = 1
MAX_NPZ_BYTES = 300_000


@dataclass(frozen=True)
class Made:
    """A trained network with all that the manifest says about it.

    `inputs` and `labels` are the evaluation set (leading axis N). `input_ranges` gives, for each
    input, the values that make sense for it: {"low", "high", "meaning"}.
    """

    model: onnx.ModelProto
    task: str
    exporter: str
    metric: str
    inputs: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    input_ranges: dict[str, dict[str, Any]]
    data_source: str
    packages: tuple[str, ...] = ("torch", "onnx", "numpy")
    data_of: str | None = None  # the network whose evaluation set this is, where it is not its own
    extra: dict[str, Any] = field(default_factory=dict)


def run_samples(
    model: bytes | str, inputs: Mapping[str, np.ndarray]
) -> list[dict[str, np.ndarray]]:
    """Outputs by name, one dictionary per sample; each sample is run alone, as a batch of one."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    count = len(next(iter(inputs.values())))
    results = []
    for i in range(count):
        feed = {name: array[i : i + 1] for name, array in inputs.items()}
        results.append(dict(zip(names, session.run(names, feed), strict=True)))
    return results


def measure(
    model: bytes | str,
    metric: str,
    inputs: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
) -> float:
    """The metric's value on an evaluation set, run by ONNX Runtime one sample at a time."""
    return METRICS[metric].function(run_samples(model, inputs), labels)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a .npz file by name."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def record(name: str, made: Made, seed: int, folder: Path) -> dict[str, Any]:
    """Writes the three files of one network into `folder` and returns its manifest entry.

    Raises ValueError if the evaluation set does not fit the model or is too large to commit.
    """
    onnx.checker.check_model(made.model, full_check=True)
    model_path = folder / f"{name}.onnx"
    data_path = folder / f"{made.data_of or name}.eval.npz"
    labels_path = folder / f"{made.data_of or name}.labels.npz"
    onnx.save(made.model, model_path)
    np.savez_compressed(data_path, **made.inputs)  # type: ignore[arg-type]
    np.savez_compressed(labels_path, **made.labels)  # type: ignore[arg-type]
    for path in (data_path, labels_path):
        if path.stat().st_size > MAX_NPZ_BYTES:
            raise ValueError(f"{path.name}: {path.stat().st_size} bytes, limit {MAX_NPZ_BYTES}")

    initializers = {tensor.name for tensor in made.model.graph.initializer}
    declared = [v for v in made.model.graph.input if v.name not in initializers]
    if {v.name for v in declared} != set(made.inputs):
        raise ValueError(f"{name}: evaluation arrays {sorted(made.inputs)} do not match the inputs")
    value = measure(str(model_path), made.metric, made.inputs, made.labels)
    return {
        "name": name,
        "file": model_path.name,
        "sha256": _sha256(model_path),
        "size_bytes": model_path.stat().st_size,
        "task": made.task,
        "made_by": {
            "script": "scripts/make_models.py",
            "function": f"models_lib.nets.{name}.make",
            "seed": seed,
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in (*made.packages, "onnxruntime")},
        },
        "exporter": made.exporter,
        "opset": {entry.domain or "ai.onnx": entry.version for entry in made.model.opset_import},
        "ir_version": made.model.ir_version,
        "inputs": [_describe(v) | made.input_ranges[v.name] for v in declared],
        "outputs": [_describe(v) for v in made.model.graph.output],
        "metric": {
            "name": made.metric,
            "value": round(value, 5),
            "meaning": METRICS[made.metric].meaning,
            "samples": len(next(iter(made.inputs.values()))),
        },
        "data": {
            "source": made.data_source,
            "inputs": data_path.name,
            "inputs_sha256": _sha256(data_path),
            "labels": labels_path.name,
            "labels_sha256": _sha256(labels_path),
        },
    } | made.extra


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Manifest entries by network name; empty where there is no manifest yet."""
    path = folder / "manifest.json"
    if not path.exists():
        return {}
    return {entry["name"]: entry for entry in json.loads(path.read_text("utf-8"))["models"]}


def write_manifest(folder: Path, entries: Mapping[str, dict[str, Any]]) -> None:
    """Writes the manifest, entries in the given order."""
    document = {"manifest_version": MANIFEST_VERSION, "models": list(entries.values())}
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_text(text, "utf-8")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _describe(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    dims = [d.dim_param if d.HasField("dim_param") else d.dim_value for d in tensor.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    # An exporter leaves a dimension blank where the size depends on the data (NonMaxSuppression).
    return {"name": value.name, "dtype": dtype, "shape": [d or "?" for d in dims]}
