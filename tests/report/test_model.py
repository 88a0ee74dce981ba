"""Report as data: a round trip loses nothing, bad data is refused by name of the place."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings

from ort_optim.errors import InputError
from ort_optim.report import Report, Timing
from ort_optim.report.codec import encode, json_schema
from tests.report import builds

DOCS = Path(__file__).parents[2] / "docs"


@settings(max_examples=50, deadline=None)
@given(builds.reports())
def test_json_round_trip_keeps_everything(report: Report) -> None:
    text = report.to_json().encode("utf-8", "backslashreplace")
    again = Report.from_json(text)
    assert encode(again) == encode(report)


@settings(max_examples=30, deadline=None)
@given(builds.reports())
def test_any_report_fits_the_published_schema(report: Report) -> None:
    jsonschema.validate(report.to_dict(), json_schema(Report))


def test_round_trip_gives_an_equal_report() -> None:
    report = builds.report()
    assert Report.from_dict(json.loads(report.to_json())) == report


def test_published_schema_file_is_the_one_of_the_code() -> None:
    published = json.loads((DOCS / "report.schema.json").read_text())
    assert published == json_schema(Report)


def test_schema_page_names_every_field() -> None:
    page = (DOCS / "report-schema.md").read_text()
    schema = json_schema(Report)
    parts = [schema, *schema["$defs"].values()]
    missing = [name for part in parts for name in part["properties"] if f"`{name}`" not in page]
    assert missing == []


def test_json_has_no_bare_nan_or_infinity() -> None:
    timing = Timing("same", original_ms=(math.nan, math.inf, -math.inf))
    text = builds.report(timing=timing).to_json()

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    plain = json.loads(text, parse_constant=refuse)
    assert plain["timing"]["original_ms"] == ["NaN", "Infinity", "-Infinity"]
    found = Report.from_dict(plain).timing.original_ms
    assert math.isnan(found[0])
    assert found[1:] == (math.inf, -math.inf)


def test_numpy_numbers_are_written_as_numbers() -> None:
    timing = Timing("same", ratio=np.float32(1.5), runs=np.int64(7))  # type: ignore[arg-type]
    plain = json.loads(builds.report(timing=timing).to_json())
    assert plain["timing"]["ratio"] == 1.5
    assert plain["timing"]["runs"] == 7


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("timing", "ratio"), "fast", "timing.ratio: expected a number"),
        (("timing", "runs"), True, "timing.runs: expected an integer"),
        (("timing", "verdict"), "great", "timing.verdict: expected one of"),
        (("input", "path"), 3, "input.path: expected a string"),
        (("input", "opset"), [], "input.opset: expected an object"),
        (("input",), [], "input: expected an object"),
        (("passes",), {}, "passes: expected a list"),
        (("warnings",), ["a", 1], r"warnings\[1\]: expected a string"),
        (("verification", "shapes"), [{"x": [1, "N"]}], r"shapes\[0\].x\[1\]: expected an integer"),
        (("decision", "kept"), 1, "decision.kept: expected true or false"),
        (("schema_version",), 2, "schema version 1"),
    ],
)
def test_bad_data_is_refused_with_its_place(
    path: tuple[str, ...], value: object, message: str
) -> None:
    plain = builds.report().to_dict()
    part = plain
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(InputError, match=message):
        Report.from_dict(plain)


def test_missing_field_is_named() -> None:
    plain = builds.report().to_dict()
    del plain["input"]["sha256"]
    with pytest.raises(InputError, match=r"input\.sha256: missing"):
        Report.from_dict(plain)


@pytest.mark.parametrize("data", [None, 3, [], {}, "x"])
def test_what_is_no_report_is_refused(data: object) -> None:
    with pytest.raises(InputError, match="schema version 1"):
        Report.from_dict(data)


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(InputError, match="not JSON"):
        Report.from_json("{")


def test_unknown_fields_of_a_newer_writer_are_ignored() -> None:
    plain = builds.report().to_dict()
    plain["timing"]["energy_j"] = 3.2
    assert Report.from_dict(plain) == builds.report()
