"""The Markdown report, read back with a Markdown parser."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ort_optim.report import OutputResult, Report, Rewrite, Verification
from ort_optim.report.markdown import LINES_SHOWN, code, escape, to_markdown
from ort_optim.report.units import printable
from tests.report import builds

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def tables(markdown: str) -> list[list[list[str]]]:
    """All tables, as rows of cell texts."""
    found: list[list[list[str]]] = []
    inside = False
    for token in PARSER.parse(markdown):
        if token.type in ("table_open", "table_close"):
            inside = token.type == "table_open"
            found += [[]] if inside else []
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and inside and token.children is not None:
            text = "".join(c.content for c in token.children if c.type == "text")
            found[-1][-1].append(text)
    return found


def test_first_table_holds_the_facts() -> None:
    facts = tables(to_markdown(builds.report()))[0]
    assert facts == [
        ["", "before", "after", "change"],
        ["Nodes", "178", "110", "-38.2%"],
        ["File size", "3.54 MiB", "3.45 MiB", "-2.7%"],
        ["Weights", "3.48 MiB", "3.40 MiB", "-2.5%"],
        ["Parameters", "912 k", "890 k", "-2.4%"],
        ["Latency", "15.5 ms", "12.8 ms", "1.21x"],
    ]


def test_headline_verdicts_and_folds_are_there() -> None:
    text = to_markdown(builds.report())
    assert text.startswith("### ort_optim: 1.21x faster, 178 → 110 nodes, verified\n")
    assert "- ✅ **verified** 2 outputs on 3 input sets" in text
    assert text.count("<details>") == text.count("</details>") == 4
    assert "<summary>fold_batchnorm: 27 applied, 1 refused" in text


@given(st.text(st.characters(), max_size=40))
def test_escaped_text_renders_as_itself(text: str) -> None:
    rendered = PARSER.renderInline(f"x {escape(text)} x")
    plain = rendered.removeprefix("x ").removesuffix(" x")
    for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        plain = plain.replace(entity, char)
    assert plain.split() == printable(text).split()


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "a|b|c",
        "**bold** [link](http://x.y) `code`",
        "</details></code><img src=x>",
        "line\nbreak",
        "$\\frac{1}{2}$",
    ],
)
def test_names_of_a_model_never_become_markup(name: str) -> None:
    outputs = (OutputResult(name, True, decided_by=name),)
    text = to_markdown(
        builds.report(
            rewrites=(Rewrite(1, name, name, name, name, name),),
            verification=Verification("passed", 1, outputs=outputs),
            warnings=(name,),
        )
    )
    html = PARSER.render(text)
    tags = set(re.findall(r"</?([a-z0-9]+)", html))
    layout = {"h3", "p", "ul", "li", "strong", "details", "summary", "code"}
    assert tags <= layout | {"table", "thead", "tbody", "tr", "th", "td"}
    assert all(len(row) == len(table[0]) for table in tables(text) for row in table)


def test_code_of_nothing_is_nothing() -> None:
    assert code("") == ""


def test_long_passes_are_cut_with_a_count() -> None:
    rewrites = tuple(Rewrite(i, "p", "", f"n{i}", "Op", "d") for i in range(LINES_SHOWN + 7))
    text = to_markdown(builds.report(rewrites=rewrites))
    assert "and 7 more rewrites" in text
    assert f"n{LINES_SHOWN}<" not in text


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(builds.reports())
def test_any_report_gives_whole_tables(report: Report) -> None:
    text = to_markdown(report)
    assert all(len(row) == len(table[0]) for table in tables(text) for row in table)
    assert text.count("<details>") == text.count("</details>")
