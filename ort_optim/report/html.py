"""The report as one HTML page that needs no network: page.html filled in, with SVG plots inline."""

from __future__ import annotations

import importlib.util
import json
from importlib import resources
from typing import Any

from ort_optim.errors import InputError
from ort_optim.report.model import Report
from ort_optim.report.summary import explanations, fact_rows, headline, op_rows, verdicts
from ort_optim.report.units import error_text, printable, size_text, time_text

MARKS = {"good": "✓", "bad": "✗", "warning": "!", "neutral": "·"}


def check_extra() -> None:
    """Raise InputError, naming the extra, where jinja2 or pygal is missing; imports neither."""
    for name in ("jinja2", "pygal"):
        if importlib.util.find_spec(name) is None:
            raise InputError(f"an HTML report needs {name}: pip install ort_optim[report]")


def to_html(report: Report) -> str:
    """The page as text. Raises InputError, naming the extra, where jinja2 or pygal is missing."""
    check_extra()
    import jinja2
    import markupsafe

    from ort_optim.report import charts

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "printable": printable,
        "size": size_text,
        "time": time_text,
        "error": error_text,
        "plain": _plain,
    }
    page = resources.files("ort_optim.report").joinpath("page.html").read_text(encoding="utf-8")
    drawn = (
        ("Ops before and after", charts.op_chart(report)),
        ("Error of each output", charts.error_chart(report)),
        ("Latency distribution", charts.distribution_chart(report)),
        ("Latency run by run", charts.run_chart(report)),
        ("Time taken by optimize", charts.stage_chart(report)),
        ("Time taken by passes", charts.pass_chart(report)),
    )
    # SVG drawn by pygal, which escapes its labels, is the only text that goes in as it is.
    plots = [(title, markupsafe.Markup(svg)) for title, svg in drawn if svg]
    explained = explanations(report)
    return environment.from_string(page).render(
        report=report,
        headline=headline(report, arrow="→"),
        facts=fact_rows(report),
        ops=op_rows(report),
        verdicts=verdicts(report),
        explanations=explained,
        idle=[each.name for each in explained if not (each.rewrites or each.refusals)],
        plots=plots,
        marks=MARKS,
    )


def _plain(value: Any) -> str:
    """An option or fact: text as it is, anything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return printable(text)
