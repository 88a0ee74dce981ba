"""The words of a report: what happened is said, with the figures that prove it."""

from __future__ import annotations

from dataclasses import replace

from ort_optim.report import Decision, OutputResult, Refusal, Rewrite, Timing, Verification
from ort_optim.report.summary import explanations, fact_rows, headline, op_rows, verdicts
from tests.report import builds


def said(label: str, **changes: object) -> str:
    found = [v for v in verdicts(builds.report(**changes)) if v.label == label]
    assert len(found) == 1, found
    return found[0].text


def test_headline_of_a_good_run() -> None:
    assert headline(builds.report()) == "1.21x faster, 178 -> 110 nodes, verified"


def test_headline_never_claims_speed_where_the_original_was_returned() -> None:
    report = builds.report(decision=Decision(False, "no gain"))
    assert headline(report) == "original returned unchanged, verified"


def test_headline_turns_the_ratio_over_where_slower() -> None:
    report = builds.report(timing=Timing("slower", ratio=0.8))
    assert headline(report).startswith("1.25x slower")


def test_headline_says_that_verification_failed() -> None:
    report = builds.report(verification=Verification("failed"))
    assert "NOT verified" in headline(report)


def test_changed_ops_are_listed_largest_change_first() -> None:
    rows = [(row.label, row.change) for row in op_rows(builds.report())]
    assert rows == [
        ("HardSwish", "+42"),
        ("Mul", "-42"),
        ("Sigmoid", "-42"),
        ("BatchNormalization", "-27"),
        ("LayerNormalization", "+1"),
    ]


def test_latency_row_appears_only_when_timed() -> None:
    assert fact_rows(builds.report())[-1].label == "Latency"
    untimed = builds.report(timing=Timing("not timed"))
    assert "Latency" not in [row.label for row in fact_rows(untimed)]


def test_verified_line_names_the_worst_output_and_the_rule() -> None:
    text = said("verified")
    assert "2 outputs on 3 input sets" in text
    assert "max error 3.1e-06 in 'scores', within 0.008 (rtol/atol)" in text


def test_worst_output_is_the_one_nearest_to_its_bound() -> None:
    outputs = (
        OutputResult("large", True, max_abs=5.0, decided_by="rtol/atol", bound=100.0),
        OutputResult("tight", True, max_abs=0.9, decided_by="rtol/atol", bound=1.0),
    )
    text = said("verified", verification=Verification("passed", 1, outputs=outputs))
    assert "max error 0.9 in 'tight'" in text


def test_snr_bound_is_said_in_db_and_not_taken_for_an_error() -> None:
    outputs = (OutputResult("y", True, max_abs=0.5, decided_by="SNR", bound=31.5),)
    text = said("verified", verification=Verification("passed", 1, outputs=outputs))
    assert "judged by SNR (at least 31.5 dB)" in text


def test_failed_outputs_are_named_with_their_reason() -> None:
    outputs = tuple(
        OutputResult(f"y{i}", False, max_abs=1.0, reason="error 1 where 0.1 is allowed")
        for i in range(5)
    )
    text = said("NOT verified", verification=Verification("failed", 1, outputs=outputs))
    assert "'y0': error 1 where 0.1 is allowed" in text
    assert "and 2 more outputs" in text


def test_equal_outputs_are_called_equal() -> None:
    outputs = (OutputResult("y", True, max_abs=0.0, decided_by="exact"),)
    assert said("verified", verification=Verification("passed", 1, outputs=outputs)).endswith(
        "equal"
    )


def test_speed_line_has_ratio_spread_runs_and_threads() -> None:
    assert said("faster") == "1.21 times as fast (95%: 1.20 to 1.22); 8 runs each, 1 thread"


def test_decision_says_which_file_was_written() -> None:
    assert said("kept").startswith("faster beyond noise")
    decision = Decision(False, "not faster, not smaller")
    same = replace(builds.report().output, sha256=builds.report().input.sha256)
    text = said("not kept", decision=decision, output=same)
    assert text == "OUT is the original, byte for byte: not faster, not smaller"
    text = said("not kept", decision=decision)
    assert text.startswith("OUT is the original, with its external data written beside it")


def test_culprit_and_undone_pass_are_both_named() -> None:
    undone = [v.text for v in verdicts(builds.report()) if v.label == "undone"]
    assert undone == [
        "fuse_pad at Pad_7 (rewrite 96): it made the outputs differ by 0.31",
        "pass normalize_gemm: it made the model slower",
    ]


def test_explanations_group_refusals_by_reason_with_counts() -> None:
    refusals = (
        Refusal("p", "a", "Conv", "group=2"),
        Refusal("p", "b", "Conv", "no weights"),
        Refusal("p", "c", "Conv", "no weights", 4),
    )
    report = builds.report(passes=(), rewrites=(), refusals=refusals)
    (found,) = explanations(report)
    assert found.totals == "0 applied, 6 refused"
    assert [(g.reason, g.count, g.nodes) for g in found.refusals] == [
        ("no weights", 5, ("b (Conv)", "c (Conv)")),
        ("group=2", 1, ("a (Conv)",)),
    ]


def test_explanations_keep_the_order_of_the_passes_and_of_the_numbers() -> None:
    report = builds.report()
    shuffled = replace(
        report,
        rewrites=(*reversed(report.rewrites), Rewrite(99, "unlisted", "", "n", "Op", "d")),
    )
    found = explanations(shuffled)
    names = ["fold_batchnorm", "fold_constants", "eliminate_identity", "unlisted"]
    assert [e.name for e in found] == names
    assert [r.number for r in found[0].rewrites] == list(range(1, 28))


def test_an_error_larger_than_the_tightest_bound_is_not_said_to_be_within_it() -> None:
    outputs = (OutputResult("y", True, max_abs=4.5e-5, decided_by="rtol/atol", bound=4.1e-5),)
    text = said("verified", verification=Verification("passed", 1, outputs=outputs))
    assert "max error 4.5e-05, within rtol/atol (4.1e-05 where it comes closest)" in text
