"""What "accuracy" means for each network: functions of outputs and labels, NumPy only.

Every metric takes the outputs of the evaluation set, one dictionary per sample (each sample run
as a batch of one), and the labels by name with leading axis N; higher is better.

    top1, token_accuracy, sequence_exact_match   classifiers, per position, CTC strings
    mean_average_precision, mean_iou             detector, segmenter
    psnr_db                                      image restoration
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Outputs = Sequence[Mapping[str, np.ndarray]]
Labels = Mapping[str, np.ndarray]


class Metric(NamedTuple):
    """A function of (outputs, labels), and one sentence on what its value says."""

    function: Callable[[Outputs, Labels], float]
    meaning: str


def top1(outputs: Outputs, labels: Labels) -> float:
    """`logits` (1, classes) against `label` (N,)."""
    predicted = np.array([out["logits"][0].argmax() for out in outputs])
    return float((predicted == labels["label"]).mean())


def token_accuracy(outputs: Outputs, labels: Labels) -> float:
    """`logits` (1, S, classes) against `label` (N, S); positions labelled -1 do not count."""
    predicted = np.stack([out["logits"][0].argmax(-1) for out in outputs])  # (N, S)
    counted = labels["label"] >= 0
    return float((predicted == labels["label"])[counted].mean())


def sequence_exact_match(outputs: Outputs, labels: Labels) -> float:
    """`log_probs` (T, 1, classes), blank 0, greedy CTC, against `text` (N, L), padded with -1."""
    right = 0
    for out, text in zip(outputs, labels["text"], strict=True):
        best = out["log_probs"][:, 0].argmax(-1)  # (T,)
        changed = np.concatenate([[True], best[1:] != best[:-1]])
        read = best[changed & (best != 0)] - 1
        right += np.array_equal(read, text[text >= 0])
    return right / len(outputs)


def mean_iou(outputs: Outputs, labels: Labels) -> float:
    """`mask` (1, H, W) against `mask` (N, H, W): mean over classes of the summed overlap."""
    predicted = np.concatenate([out["mask"] for out in outputs])
    truth = labels["mask"]
    ratios = []
    for c in np.unique(truth):
        both = np.logical_and(predicted == c, truth == c).sum()
        either = np.logical_or(predicted == c, truth == c).sum()
        ratios.append(both / either)
    return float(np.mean(ratios))


def psnr_db(outputs: Outputs, labels: Labels) -> float:
    """`output` (1, C, H, W) in 0..1 against `target` (N, C, H, W) in 0..255: mean PSNR."""
    values = []
    for out, target in zip(outputs, labels["target"], strict=True):
        difference = out["output"][0].clip(0, 1) - target / 255.0
        values.append(-10 * np.log10(np.mean(difference**2)))
    return float(np.mean(values))


def mean_average_precision(outputs: Outputs, labels: Labels, iou_threshold: float = 0.5) -> float:
    """`boxes` (K, 4) x1 y1 x2 y2, `scores` (K,), `classes` (K,) against the labels `boxes`
    (N, M, 4) and `classes` (N, M), padded with class -1: area under the precision-recall curve,
    mean over classes."""
    classes = labels["classes"]
    return float(
        np.mean(
            [
                _average_precision(outputs, labels["boxes"], classes == c, c, iou_threshold)
                for c in np.unique(classes[classes >= 0])
            ]
        )
    )


def _average_precision(
    outputs: Outputs, boxes: np.ndarray, wanted: np.ndarray, c: int, iou_threshold: float
) -> float:
    """Area under the precision-recall curve of class `c`; `wanted` (N, M) marks its true boxes."""
    found = [
        (float(score), image, box)
        for image, out in enumerate(outputs)
        for box, score, cls in zip(out["boxes"], out["scores"], out["classes"], strict=True)
        if cls == c
    ]
    found.sort(key=lambda item: -item[0])
    taken = np.zeros(wanted.shape, bool)
    hits = np.zeros(len(found), bool)
    for i, (_, image, box) in enumerate(found):
        overlap = np.where(wanted[image] & ~taken[image], _iou(box, boxes[image]), 0.0)
        best = int(overlap.argmax())
        if overlap[best] >= iou_threshold:
            hits[i] = taken[image, best] = True
    recall = np.concatenate([[0.0], hits.cumsum() / wanted.sum()])
    precision = hits.cumsum() / np.arange(1, len(found) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * envelope).sum())


def _iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box (4,) with `boxes` (M, 4), as x1 y1 x2 y2."""
    size = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    inter = size.clip(0).prod(-1)
    area = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return inter / np.maximum(area - inter, 1e-9)


METRICS: dict[str, Metric] = {
    "top1": Metric(top1, "share of samples whose highest logit is the label"),
    "token_accuracy": Metric(token_accuracy, "share of positions whose highest logit is the label"),
    "sequence_exact_match": Metric(sequence_exact_match, "share of strings read without any error"),
    "mean_iou": Metric(mean_iou, "intersection over union, mean over classes"),
    "psnr_db": Metric(psnr_db, "peak signal-to-noise ratio in dB, mean over samples"),
    "mean_average_precision": Metric(
        mean_average_precision, "average precision at IoU 0.5, mean over classes"
    ),
}
