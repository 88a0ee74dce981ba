"""Real models with their regions as calls: bit for bit what they give inlined."""

from __future__ import annotations

import random
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto

from ort_optim.engine import Engine, EngineError, make_source
from ort_optim.graph import load_model
from ort_optim.graph.functions import inline_functions
from ort_optim.graph.regions import group, sound_calls, wrap
from ort_optim.graph.repair import repair
from ort_optim.verify.inputs import InputPlan, find_inputs
from tests.conftest import ROOT
from tests.graph.regions.harness import (
    assert_identical,
    inlined,
    run,
    same_bits,
    structure,
    tiling,
    wrapped,
)
from tests.random_graphs import RandomGraph, graphs

OWN = sorted(path.name for path in (ROOT / "models").glob("*.onnx"))
WITHOUT_CONVS = {"code_lm.onnx"}
SHARED = {  # regions that are found in each
    "detection/yolox_nano_416.onnx": 1,
    "detection/ultraface_rfb_320_simplified.onnx": 1,
    "detection/nanodet_m_320.onnx": 17,
    "classification/squeezenet_fp16.onnx": 2,
    "superres/waifu2x_upconv7_scale2x.onnx": 1,
    "segmentation/pan_mobilenetv3_small_simplified.onnx": 26,
    "audio/silero_vad_16k_op15.onnx": 3,
    "external_data/conv_qdq_external_ini/conv_qdq_external_ini.onnx": 1,
}


def check_model(path: Path, engine: Engine, scratch: Path) -> int:
    """Wrap a model and compare it with itself; the number of its regions."""
    loaded = load_model(path)
    before = ModelProto()
    before.CopyFrom(loaded.model)
    repair(before)
    before = inline_functions(before)
    after = wrapped(before)
    onnx.checker.check_model(after, full_check=True)
    flat = inlined(after)
    assert structure(flat) == structure(before)
    found = sound_calls(after)
    assert not found.refused
    handle = engine.open(make_source(before, loaded.folder, scratch))
    try:
        plan = find_inputs(engine, handle, before, count=1)
    finally:
        engine.close(handle)
    assert isinstance(plan, InputPlan)
    got, wanted = (
        run(engine, make_source(each, loaded.folder, scratch), dict(plan.feeds[0]))
        for each in (after, flat)
    )
    assert list(got) == list(wanted)
    assert all(same_bits(got[name], wanted[name]) for name in wanted)
    return len(found.calls)


@pytest.mark.parametrize("name", OWN)
def test_own_models_are_bit_identical(
    name: str, own_models: Path, engine: Engine, tmp_path: Path
) -> None:
    count = check_model(own_models / name, engine, tmp_path)
    assert (count == 0) is (name in WITHOUT_CONVS)


@pytest.mark.parametrize("name", SHARED)
def test_shared_models_are_bit_identical(
    name: str, shared_models: Path, engine: Engine, tmp_path: Path
) -> None:
    assert check_model(shared_models / name, engine, tmp_path) == SHARED[name]


@given(graphs(), st.randoms(use_true_random=False))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
def test_random_graphs_with_any_nodes_in_regions_are_bit_identical(
    engine: Engine, graph: RandomGraph, rng: random.Random
) -> None:
    before = ModelProto()
    before.CopyFrom(graph.model)
    repair(before)

    def often(_: NodeProto) -> bool:
        return rng.random() < 0.5

    found = group(before, lambda node: None if rng.random() < 0.8 else "bad luck", often)
    after = wrap(before, found.regions, [tiling(len(r.anchors)) for r in found.regions])
    assert not sound_calls(after).refused
    assert structure(inlined(after)) == structure(before)
    try:
        onnx.checker.check_model(before, full_check=True)
        run(engine, before, graph.feeds)
    except (EngineError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return
    onnx.checker.check_model(after, full_check=True)
    assert_identical(engine, after, graph.feeds)
