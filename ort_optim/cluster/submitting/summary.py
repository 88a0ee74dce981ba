"""What a batch has gained: one row per job, from the journal and the jobs' own reports."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ort_optim.cluster.states import OVER, Record, State
from ort_optim.cluster.submitting.gang import folder_of
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.errors import OrtOptimError
from ort_optim.report import Report
from ort_optim.report.markdown import code, escape
from ort_optim.report.units import plural, size_text, time_text

HEADINGS = ("job", "state", "server", "waited", "ran", "before", "after", "gain", "size", "note")

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ headline }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #8884; padding: .25em .6em; text-align: left }
.DONE { color: #287d3c } .FAILED, .HELD, .LOST { color: #c0392b }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd } }
</style></head><body><h1>{{ headline }}</h1><table>
<tr>{% for heading in headings %}<th>{{ heading }}</th>{% endfor %}</tr>
{% for row in rows %}<tr class="{{ row[1] }}">{% for cell in row %}<td>{{ cell }}</td>{% endfor %}
</tr>{% endfor %}
</table></body></html>
"""


@dataclass(frozen=True)
class Row:
    """One job. Times of the model are medians of one run; None where nothing was timed."""

    record: Record
    before_ms: float | None = None
    after_ms: float | None = None
    before_bytes: int = 0
    after_bytes: int = 0
    note: str = ""

    @property
    def gain(self) -> float | None:
        """How many times faster; 1.0 for a result that is the original."""
        if not self.before_ms or not self.after_ms:
            return None
        return self.before_ms / self.after_ms

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of HEADINGS."""
        record = self.record
        ran_s = record.ended_s - record.started_s if record.ended_s and record.started_s else 0.0
        sizes = f"{size_text(self.before_bytes)} -> {size_text(self.after_bytes)}"
        return (
            record.id,
            str(record.state),
            record.server,
            seconds_text(record.waited_s(time.time())),
            seconds_text(ran_s) if ran_s else "",
            time_text(self.before_ms) if self.before_ms else "",
            time_text(self.after_ms) if self.after_ms else "",
            f"{self.gain:.2f}x" if self.gain else "",
            sizes if self.before_bytes else "",
            self.note,
        )


def rows_of(journal: Journal) -> list[Row]:
    """A row for each job, in the order of their submission."""
    return [_row(record, journal.folder) for record in journal.records()]


def headline(rows: Sequence[Row]) -> str:
    """Counts of states, and the mean gain of what was timed."""
    counts = Counter(row.record.state for row in rows)
    states = ", ".join(f"{counts[state]} {state.lower()}" for state in State if counts[state])
    text = f"{plural(len(rows), 'job')}: {states or 'nothing to do'}"
    gains = [row.gain for row in rows if row.gain]
    if gains:
        mean = math.exp(sum(map(math.log, gains)) / len(gains))
        text += f"; {plural(len(gains), 'model')} timed, {mean:.2f}x as fast in the geometric mean"
    return text


def to_markdown(rows: Sequence[Row]) -> str:
    """A heading and a table, fit for the job summary of a CI run."""
    lines = [
        f"### {escape(headline(rows))}",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"| {' | '.join('---' for _ in HEADINGS)} |",
    ]
    for row in rows:
        name, *others = row.cells()
        lines.append(f"| {' | '.join((code(name), *map(escape, others)))} |")
    return "\n".join(lines) + "\n"


def to_html(rows: Sequence[Row]) -> str:
    """The same as a page of its own."""
    import jinja2

    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(PAGE)
    return page.render(
        headline=headline(rows), headings=HEADINGS, rows=[row.cells() for row in rows]
    )


def write_summary(rows: Sequence[Row], path: Path) -> None:
    """Write Markdown or HTML, as the suffix says."""
    text = to_html(rows) if path.suffix.lower() == ".html" else to_markdown(rows)
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def seconds_text(seconds: float) -> str:
    """Such as 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _row(record: Record, folder: Path) -> Row:
    note = record.cause if record.state is not State.DONE else ""
    if record.state in OVER and record.state is not State.DONE:
        return Row(record, note=note)
    path = folder_of(folder, record.id, 0) / "report.json"
    if record.job.model is None or record.state is not State.DONE or not path.is_file():
        return Row(record, note=note or record.note)
    try:
        report = Report.from_json(path.read_text(encoding="utf-8"))
    except (OrtOptimError, OSError, ValueError) as error:
        return Row(record, note=f"its report can't be read: {error}")
    kept = report.decision.kept
    timing = report.tiling.timing if report.tiling.kept else report.timing  # as it will be run
    before_ms = timing.median_original_ms
    return Row(
        record,
        before_ms=before_ms,
        after_ms=timing.median_result_ms if kept else before_ms,
        before_bytes=report.input.size_bytes,
        after_bytes=report.output.size_bytes if kept else report.input.size_bytes,
        note=report.decision.reason,
    )
