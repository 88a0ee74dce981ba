"""The report on a terminal and in a pipe."""

from __future__ import annotations

import io

import pytest
from hypothesis import HealthCheck, given, settings
from rich.cells import cell_len
from rich.console import Console

from ort_optim.report import OutputResult, Report, Rewrite, Verification, print_report
from tests.report import builds


def shown(report: Report, *, terminal: bool, width: int = 80, explain: bool = False) -> str:
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=terminal,
        color_system="truecolor" if terminal else None,
        legacy_windows=False,
    )
    print_report(report, console, explain=explain)
    return file.getvalue()


GOLDEN = """\
1.21x faster, 178 -> 110 nodes, verified
in.onnx -> out.onnx

                        before     after  change
Nodes                      178       110  -38.2%
  HardSwish                  0        42     +42
  Mul                       42         0     -42
  Sigmoid                   42         0     -42
  BatchNormalization        27         0     -27
  LayerNormalization         0         1      +1
File size             3.54 MiB  3.45 MiB   -2.7%
Weights               3.48 MiB  3.40 MiB   -2.5%
Parameters               912 k     890 k   -2.4%
Latency                15.5 ms   12.8 ms   1.21x

+ verified  2 outputs on 3 input sets; max error 3.1e-06 in 'scores', within 0.008 (rtol/atol)
! undone    fuse_pad at Pad_7 (rewrite 96): it made the outputs differ by 0.31
+ faster    1.21 times as fast (95%: 1.20 to 1.22); 8 runs each, 1 thread
! undone    pass normalize_gemm: it made the model slower
+ kept      faster beyond noise, and 97.7 KiB smaller
- repaired  nodes were not in topological order
! warning   value info of 'x' contradicts shape inference and was left out
"""


def test_piped_report_is_this_plain_text() -> None:
    assert shown(builds.report(), terminal=False) == GOLDEN


def test_piped_table_can_be_cut_into_columns() -> None:
    lines = shown(builds.report(), terminal=False).splitlines()
    rows = [line.rsplit(maxsplit=3) for line in lines if line.startswith("  ")][1:]
    assert rows[0] == ["  HardSwish", "0", "42", "+42"]
    assert {row[0].strip(): int(row[2]) - int(row[1]) for row in rows} == {
        "HardSwish": 42,
        "Mul": -42,
        "Sigmoid": -42,
        "BatchNormalization": -27,
        "LayerNormalization": 1,
    }


@pytest.mark.parametrize("width", [40, 80, 200])
def test_terminal_lines_never_exceed_its_width(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    long = Rewrite(1, "p", "g" * 60, "n" * 150, "Op" * 30, "d" * 90)
    print_report(builds.report(rewrites=(long,)), console, explain=True)
    assert max(map(cell_len, file.getvalue().splitlines())) <= width


def test_terminal_has_colour_and_the_pipe_has_none() -> None:
    assert "\x1b[" in shown(builds.report(), terminal=True)
    assert "\x1b" not in shown(builds.report(), terminal=False, explain=True)


def test_pipe_has_no_box_characters_and_no_trailing_space() -> None:
    text = shown(builds.report(), terminal=False, explain=True)
    assert text.isascii()
    assert all(line == line.rstrip() for line in text.splitlines())


def test_explain_lists_every_rewrite_and_every_refusal() -> None:
    report = builds.report()
    text = shown(report, terminal=False, explain=True)
    for rewrite in report.rewrites:
        assert f" {rewrite.number}  {rewrite.node}" in text
    assert "refused 1: Conv has 2 consumers\n    /head/bn (BatchNormalization)" in text
    assert (
        "refused 2: would grow the model by 9.5 MiB\n    Expand_3 (Expand)\n    and 1 more" in text
    )
    assert "nothing to do: eliminate_identity" in text


def test_markup_and_escape_sequences_in_names_are_shown_not_obeyed() -> None:
    outputs = (OutputResult("[bold red]\x1b[2J[/]", False, reason="[link=x]bad"),)
    text = shown(
        builds.report(verification=Verification("failed", outputs=outputs)), terminal=False
    )
    assert "'[bold red]\\x1b[2J[/]': [link=x]bad" in text


def test_ascii_terminal_gets_ascii() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    report = builds.report(warnings=("Größe",))
    print_report(report, Console(file=file, width=80), explain=True)
    file.flush()
    assert b"Gr\\xf6\\xdfe" in raw.getvalue()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(builds.reports())
def test_any_report_can_be_printed(report: Report) -> None:
    shown(report, terminal=True, explain=True)
    text = shown(report, terminal=False, explain=True)
    assert "\x1b" not in text
