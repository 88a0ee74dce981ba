"""Architectures and scale graphs: right size, and activations that stay in range."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from models_lib import fullsize, light, scale

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_models.py"


def run(model: bytes | str, seed: int = 0) -> np.ndarray:
    """The first output for a normal random input; free dimensions are 1."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    shape = [d if isinstance(d, int) else 1 for d in value.shape]
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return session.run(None, {value.name: x})[0]


# The large ones differ in size only, and would take this suite's time.
@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v1", "densenet121"])
def test_light_architecture_gets_weights_that_keep_activations_in_range(name: str) -> None:
    model = light.make(name, seed=1)
    onnx.checker.check_model(model, full_check=True)
    assert "ConstantOfShape" not in {node.op_type for node in model.graph.node}
    assert len(model.graph.input) == 1
    output = run(model.SerializeToString()).ravel()
    assert np.isfinite(output).all()
    if name == "densenet121":  # ends in logits, the others in a Softmax
        assert 1 < output.std() < 30
    else:
        assert 0.001 < output.max() < 0.9
        assert output.max() > 1.3 * output.min()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_fullsize_architecture_keeps_activations_in_range(name: str) -> None:
    model = fullsize.ARCHITECTURES[name](1)
    onnx.checker.check_model(model, full_check=True)
    assert 0.1 < run(model.SerializeToString()).std() < 30


def test_same_seed_same_weights() -> None:
    first, again, other = (light.make("squeezenet", seed) for seed in (1, 1, 2))
    assert first.SerializeToString() == again.SerializeToString()
    assert first.SerializeToString() != other.SerializeToString()


@pytest.mark.parametrize("count", [20, 37, 38, 500])
def test_scale_graph_has_exactly_so_many_nodes_and_still_sees_its_input(count: int) -> None:
    model = scale.make_nodes(count, seed=1)
    assert len(model.graph.node) == count
    content = model.SerializeToString()
    first, second = run(content, 1), run(content, 2)
    assert np.isfinite(first).all()
    assert np.abs(first - second).max() > 0.1


def test_scale_graph_refuses_too_few_nodes() -> None:
    with pytest.raises(ValueError, match="at least 20"):
        scale.make_nodes(19, seed=1)


def test_weights_are_the_same_inside_and_outside_the_file(tmp_path: Path) -> None:
    inline, external = tmp_path / "inline.onnx", tmp_path / "external.onnx"
    for path in (inline, external):
        # 10 matrices of 64 x 64 floats
        scale.write_gigabytes(path, 163840e-9, 1, external=path is external, width=64)
    assert (tmp_path / "external.onnx.data").stat().st_size == 163840
    assert external.stat().st_size < 5000
    onnx.checker.check_model(str(external), full_check=True)
    output = run(str(inline))
    np.testing.assert_array_equal(output, run(str(external)))
    assert 0.1 < output.std() < 10


def test_too_many_gigabytes_for_one_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--external"):
        scale.write_gigabytes(tmp_path / "big.onnx", 3, 1, external=False)
    assert not (tmp_path / "big.onnx").exists()


def test_script_writes_architectures_without_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not to be imported')")
    done = subprocess.run(
        [sys.executable, SCRIPT, "--architectures", tmp_path / "out", "--only", "squeezenet"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("squeezenet.onnx: 66 nodes")
    assert (tmp_path / "out" / "squeezenet.onnx").stat().st_size > 4_000_000


@pytest.mark.parametrize(
    "arguments",
    [["--nodes", "30"], ["--only", "nothing"], ["--external"], ["--nodes", "3", "--output", "x"]],
)
def test_script_answers_wrong_arguments_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "make_models.py: error: " in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
