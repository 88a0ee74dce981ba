"""The HTML page, read back with an HTML parser."""

from __future__ import annotations

import importlib.util
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from ort_optim.errors import InputError
from ort_optim.report import (
    OutputResult,
    Report,
    Rewrite,
    StageSeconds,
    Timing,
    Verification,
    check_report_path,
)
from ort_optim.report.html import to_html
from tests.report import builds

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_page_holds_the_facts_and_all_plots() -> None:
    page = Page(to_html(builds.report()))
    text = " ".join(page.words)
    for expected in ("1.21x faster", "3.54 MiB", "-38.2%", "cd" * 32, "fold_batchnorm"):
        assert expected in text
    assert page.tags.count("svg") == 6


def test_plots_without_data_are_left_out() -> None:
    report = builds.unverified_report()
    page = Page(to_html(report))
    assert page.tags.count("svg") == 0


def test_page_needs_no_network_and_no_script() -> None:
    text = to_html(builds.report())
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    addresses = {value for name, value in page.attributes if name in {"src", "href", "xlink:href"}}
    assert addresses <= {None}
    assert set(re.findall(r"https?://[^\"' ]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "@import" not in text
    assert "url(" not in text


def test_page_follows_light_and_dark() -> None:
    text = to_html(builds.report())
    assert "prefers-color-scheme: dark" in text
    assert "var(--after)" in text


def test_same_report_gives_the_same_page() -> None:
    assert to_html(builds.report()) == to_html(builds.report())


def test_names_of_a_model_never_become_markup() -> None:
    name = "</script></style></svg><script>alert(1)</script>&amp;\x00"
    report = builds.report(
        input=builds.model_facts(path=name, op_histogram={name: 3}),
        rewrites=(Rewrite(1, name, name, name, name, name),),
        verification=Verification("passed", 1, outputs=(OutputResult(name, True, max_abs=1.0),)),
        warnings=(name,),
        options={name: name},
    )
    text = to_html(report)
    assert "<script" not in text
    assert "\x00" not in text
    Page(text)


def test_values_that_no_axis_can_show_are_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    outputs = (
        OutputResult("a", False, max_abs=inf, p99=nan, mean_abs=-1.0),
        OutputResult("b", True, max_abs=1e-3, p99=1e-300, mean_abs=0.0),
        OutputResult("c", True, max_abs=1e300),
    )
    report = builds.report(
        timing=Timing("same", (nan, 1.0, 1e300, 2.0), (inf, -1.0, 1.0, 1.0), ratio=nan),
        verification=Verification("failed", outputs=outputs),
        seconds=StageSeconds(nan, inf, 0.0, 1.0, 1e300),
    )
    svgs = re.findall(r"<svg.*?</svg>", to_html(report), re.DOTALL)
    assert svgs
    assert not [svg for svg in svgs if re.search(r"\b(nan|inf)\b", svg)]


@pytest.mark.parametrize("missing", ["jinja2", "pygal"])
def test_missing_extra_is_named_with_the_way_to_get_it(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else object()
    )
    for use in (lambda: to_html(builds.report()), lambda: check_report_path(tmp_path / "r.html")):
        with pytest.raises(InputError, match=rf"{missing}: pip install ort_optim\[report\]"):
            use()
    check_report_path(tmp_path / "r.md")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(builds.reports())
def test_any_report_gives_a_page_whose_tags_nest(report: Report) -> None:
    page = Page(to_html(report))
    assert "script" not in page.tags
