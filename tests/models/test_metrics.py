"""Metrics on answers small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest
from models_lib.metrics import (
    mean_average_precision,
    mean_iou,
    psnr_db,
    sequence_exact_match,
    token_accuracy,
    top1,
)


def test_top1_counts_the_highest_logit() -> None:
    outputs = [{"logits": np.array([[0.0, 2.0]])}, {"logits": np.array([[3.0, 2.0]])}]
    assert top1(outputs, {"label": np.array([1, 1])}) == 0.5


def test_token_accuracy_skips_padding() -> None:
    logits = np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    assert token_accuracy([{"logits": logits}], {"label": np.array([[0, 0, -1]])}) == 0.5


def test_sequence_match_merges_repeats_and_drops_blanks() -> None:
    # 7 7 blank 7 -> "77" after merging; class 0 is the blank, class 1 + d the digit d.
    log_probs = np.log(np.eye(11)[[8, 8, 0, 8]] + 1e-9)[:, None]  # (T, 1, 11)
    output = {"log_probs": log_probs}
    assert sequence_exact_match([output], {"text": np.array([[7, 7, -1]])}) == 1.0
    assert sequence_exact_match([output], {"text": np.array([[7, -1, -1]])}) == 0.0


def test_mean_iou_averages_over_classes() -> None:
    truth = np.array([[[0, 0], [1, 1]]])
    predicted = np.array([[[0, 1], [1, 1]]])
    expected = (1 / 2 + 2 / 3) / 2
    assert mean_iou([{"mask": predicted}], {"mask": truth}) == pytest.approx(expected)


def test_psnr_of_a_known_error() -> None:
    output = np.full((1, 1, 2, 2), 0.5)
    target = np.full((1, 1, 2, 2), 102, np.uint8)  # 0.4
    assert psnr_db([{"output": output}], {"target": target}) == pytest.approx(20.0)


def found(*items: tuple[tuple[float, float, float, float], float, int]) -> dict[str, np.ndarray]:
    boxes, scores, classes = zip(*items, strict=True)
    return {"boxes": np.array(boxes), "scores": np.array(scores), "classes": np.array(classes)}


TRUE_BOXES = {
    "boxes": np.array([[[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]]]),
    "classes": np.array([[0, 0]]),
}


def test_average_precision_is_one_when_all_is_found() -> None:
    output = found(((0, 0, 10, 10), 0.9, 0), ((20, 20, 30, 30), 0.8, 0))
    assert mean_average_precision([output], TRUE_BOXES) == 1.0


def test_a_box_found_twice_counts_once() -> None:
    output = found(((0, 0, 10, 10), 0.9, 0), ((0, 0, 10, 9), 0.8, 0))
    assert mean_average_precision([output], TRUE_BOXES) == 0.5


def test_a_false_alarm_before_the_hit_halves_its_precision() -> None:
    output = found(((50, 50, 60, 60), 0.9, 0), ((0, 0, 10, 10), 0.8, 0))
    assert mean_average_precision([output], TRUE_BOXES) == 0.25
