from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from ort_optim.engine import Engine
from ort_optim.passes import batch_norm, same_shape, standard_operators
from tests.passes.harness import Outcome, apply, check, model_of

PASSES = (standard_operators.PASS,)

RNG = np.random.default_rng(0)
W = RNG.standard_normal((6, 4, 3, 3)).astype(np.float32)
B = RNG.standard_normal(6).astype(np.float32)


def fused(
    inputs: str, attributes: str, *, opset: int = 17, shape: str = "2, 4, 9, 7"
) -> onnx.ModelProto:
    """A FusedConv of `inputs` between two Neg, as ONNX Runtime saves them."""
    model = model_of(
        f"""g (float[2, 4, 9, 7] x, float[2, 6, 5, 4] z) => (float[2, 6, 5, 4] y) {{
            a = Neg(x)
            c = com.microsoft.FusedConv<strides = [2, 2], pads = [1, 1, 1, 1]{attributes}>({inputs})
            d = Neg(z)
            y = Add(c, d)
        }}""",
        opset=opset,
        weights={"w": W, "b": B},
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def rewritten(engine: Engine, model: onnx.ModelProto) -> Outcome:
    outcome = check(engine, model, PASSES)
    assert not [node for node in outcome.model.graph.node if node.domain]
    return outcome


@pytest.mark.parametrize("opset", [7, 11, 13, 17, 22])
@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", ""),
        ("Sigmoid", ""),
        ("Tanh", ""),
        ("LeakyRelu", "0.2"),
        ("HardSigmoid", "0.3, 0.4"),
        ("Clip", "-0.5, 1.5"),
    ],
)
def test_every_activation_of_a_fused_convolution(
    engine: Engine, opset: int, activation: str, parameters: str
) -> None:
    attributes = f', activation = "{activation}"'
    if parameters:
        attributes += f", activation_params = [{parameters}]"
    outcome = rewritten(engine, fused("a, w, b", attributes, opset=opset))
    assert outcome.ops == {"Neg": 2, "Conv": 1, activation: 1, "Add": 1}


@pytest.mark.parametrize("bias", ["b", ""])
@pytest.mark.parametrize(("activation", "made"), [(', activation = "Relu"', 1), ("", 0)])
def test_a_sum_comes_before_the_activation(
    engine: Engine, bias: str, activation: str, made: int
) -> None:
    outcome = rewritten(engine, fused(f"a, w, {bias}, z", activation))
    assert outcome.ops["Add"] == 2
    assert outcome.ops["Relu"] == made


def test_without_sum_and_activation_it_is_a_convolution(engine: Engine) -> None:
    outcome = rewritten(engine, fused("a, w, b", ""))
    assert outcome.ops == {"Neg": 2, "Conv": 1, "Add": 1}
    conv = next(node for node in outcome.model.graph.node if node.op_type == "Conv")
    assert {each.name for each in conv.attribute} == {"strides", "pads"}


def test_no_later_pass_takes_the_input_shape_for_the_convolution_s(engine: Engine) -> None:
    model = model_of(
        """g (float[1, 4, 4, 4] x) => (float[1, 4, 4, 4] y) {
            c = com.microsoft.FusedConv<strides = [4, 4], activation = "Relu">(x, w)
            y = Resize(c, , , sizes)
        }""",
        weights={
            "w": RNG.standard_normal((4, 4, 1, 1)).astype(np.float32),
            "sizes": np.array([1, 4, 4, 4]),
        },
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    outcome = check(engine, model, (standard_operators.PASS, same_shape.PASS))
    assert outcome.ops == {"Conv": 1, "Relu": 1, "Resize": 1}


def test_passes_see_types_and_sizes_behind_it(engine: Engine) -> None:
    model = fused("a, w, b", ', activation = "Relu"')
    del model.graph.node[2:]
    scale = {name: RNG.uniform(0.5, 1, 6).astype(np.float32) for name in ("s", "o", "m", "v")}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in scale.items()
    )
    norm = helper.make_node("BatchNormalization", ["e", "s", "o", "m", "v"], ["y"])
    conv = helper.make_node("Conv", ["c", "u"], ["e"])
    weights = RNG.standard_normal((6, 6, 1, 1)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "u"))
    model.graph.node.extend([conv, norm])
    outcome = check(engine, model, (standard_operators.PASS, batch_norm.PASS))
    assert outcome.ops["BatchNormalization"] == 0


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (', activation = "Swish"', "activation 'Swish' with 0 parameters"),
        (', activation = "Clip", activation_params = [1.0]', "activation 'Clip' with 1 parameters"),
    ],
)
def test_what_its_kernel_refuses_stays(engine: Engine, attributes: str, reason: str) -> None:
    outcome = apply(engine, fused("a, w, b", attributes), PASSES)
    assert outcome.ops["FusedConv"] == 1
    assert reason in outcome.reasons


def test_a_fused_convolution_of_another_type_stays(engine: Engine) -> None:
    model = fused("a, w, b", ', activation = "Relu"')
    half = onnx.numpy_helper.from_array(W.astype(np.float16), "w")
    model.graph.initializer[0].CopyFrom(half)
    outcome = apply(engine, model, PASSES)
    assert outcome.ops["FusedConv"] == 1
    assert outcome.reasons == ["its weights are not known to be float32"]


def test_a_function_of_the_model_s_own_stays(engine: Engine) -> None:
    model = fused("a, w, b", "")
    body = [helper.make_node("Conv", ["x", "w", "b"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])]
    imports = [helper.make_opsetid("", 17)]
    model.functions.append(
        helper.make_function(
            "com.microsoft",
            "FusedConv",
            ["x", "w", "b"],
            ["y"],
            body,
            imports,
            attributes=["strides", "pads"],
        )
    )
    assert apply(engine, model, PASSES).ops["FusedConv"] == 1


@pytest.mark.parametrize("opset", [7, 8, 9])
def test_an_image_scaler_has_a_bias_for_each_channel(engine: Engine, opset: int) -> None:
    model = model_of(
        """g (float[N, 3, H, W] x) => (float[N, 3, H, W] y) {
            y = ImageScaler<scale = 0.5, bias = [1.0, -2.0, 3.5]>(x)
        }""",
        opset=opset,
    )
    assert check(engine, model, PASSES).ops == {"Mul": 1, "Add": 1}


@pytest.mark.parametrize("opset", [7, 9])
def test_an_affine_map_of_any_rank(engine: Engine, opset: int) -> None:
    model = model_of(
        "g (float[2, 5] x) => (float[2, 5] y) { y = Affine<alpha = 150.0, beta = 2.5>(x) }",
        opset=opset,
    )
    assert check(engine, model, PASSES).ops == {"Mul": 1, "Add": 1}


@pytest.mark.parametrize("opset", [6, 9])
@pytest.mark.parametrize(
    ("attributes", "height", "width"),
    [
        ("border = [1, 2, 3, 4]", 5, 3),
        ("border = [0, 2, 0, 0]", 9, 7),
        ("border = [0, 0, 0, 0]", 11, 7),
        ("border = [1, 2, 3, 4], scale = [4, 2]", 4, 2),
        ("border = [4, 5, 3, 6]", 0, 0),
    ],
)
def test_a_crop_takes_borders_left_top_right_and_bottom(
    engine: Engine, opset: int, attributes: str, height: int, width: int
) -> None:
    model = model_of(
        f"""g (float[2, 3, 11, 7] x) => (float[2, 3, {height}, {width}] y) {{
            y = Crop<{attributes}>(x)
        }}""",
        opset=opset,
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Slice": 1}


@pytest.mark.parametrize(
    "call",
    [
        "ImageScaler<scale = 0.5>(x)",
        "ImageScaler<bias = [1.0, 1.0, 1.0]>(x)",
        "Affine<alpha = 1.0>(x)",
        "Crop<border = [1, 1]>(x)",
        "Crop<border = [1, 1, -1, 1]>(x)",
        "Crop<border = [1, 1, 1, 1], scale = [2]>(x)",
    ],
)
def test_old_operators_without_what_their_kernels_ask_for_stay(engine: Engine, call: str) -> None:
    text = f"g (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] y) {{ y = {call} }}"
    outcome = apply(engine, model_of(text, opset=9), PASSES)
    assert outcome.ops == {call.split("<")[0]: 1}
    assert len(outcome.reasons) == 1


def test_in_opset_6_what_needs_no_add_is_replaced(engine: Engine) -> None:
    model = fused("a, w, b", ', activation = "LeakyRelu", activation_params = [0.2]', opset=6)
    del model.graph.node[2:], model.graph.input[1:]
    model.graph.node[1].output[0] = "y"
    assert rewritten(engine, model).ops == {"Neg": 1, "Conv": 1, "LeakyRelu": 1}
    summed = apply(engine, fused("a, w, b, z", "", opset=6), PASSES)
    assert summed.ops["FusedConv"] == 1
    text = "g (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] y) { y = Affine<alpha=2.0, beta=1.0>(x) }"
    affine = apply(engine, model_of(text, opset=6), PASSES)
    assert affine.ops == {"Affine": 1}
    assert summed.reasons == affine.reasons == ["opset 6"]


def test_in_a_branch_they_are_replaced_too(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 5] x, bool taken) => (float[2, 5] y) {
            y = If (taken) <
                then_branch = t () => (float[2, 5] t0) { t0 = Affine<alpha=2.0, beta=1.0>(x) },
                else_branch = e () => (float[2, 5] e0) { e0 = Neg(x) }
            >
        }""",
        opset=9,
    )
    assert check(engine, model, PASSES).ops == {"If": 1, "Mul": 1, "Add": 1, "Neg": 1}
