from __future__ import annotations

from ort_optim.reference import LONGEST_REASON, shorten

IN_A_FUNCTION = (
    "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/model.cc:256 "
    "onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::PathString&, "
    "const onnxruntime::logging::Logger&, const onnxruntime::ModelOptions&) "
    "Unsupported model IR version: 99,\n max supported IR version: 14\n"
)


def test_what_ort_says_is_shown_without_where_it_says_it() -> None:
    assert shorten(IN_A_FUNCTION) == (
        "[ONNXRuntimeError] : 1 : FAIL : "
        "Unsupported model IR version: 99, max supported IR version: 14"
    )


def test_of_a_long_message_the_ends_are_kept() -> None:
    short = shorten("what it is about " + 100 * "and so on " + "what is at fault")
    assert len(short) <= LONGEST_REASON
    assert short.startswith("what it is about")
    assert short.endswith("what is at fault")


def test_a_message_that_is_all_text_stays_as_it_is() -> None:
    said = "Node () Op (Add) [ShapeInferenceError] Incompatible dimensions"
    assert shorten(said) == said
