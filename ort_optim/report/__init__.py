"""What `optimize` did: as data, and as text, Markdown, HTML and JSON.

model.py     Report and its parts; codec.py turns them into plain data and back
summary.py   what a report says in words, shared by the writers; units.py the numbers in it
terminal.py  print_report, print_explain
markdown.py, html.py (page.html, charts.py)
write.py     write_report: the format follows from the suffix
"""

from ort_optim.report.model import (
    SCHEMA_VERSION,
    Culprit,
    Decision,
    ModelFacts,
    OutputResult,
    PassSummary,
    Refusal,
    Report,
    Rewrite,
    StageSeconds,
    TargetFacts,
    TiledLayer,
    Tiling,
    Timing,
    ToolFacts,
    Verification,
    Weighed,
)
from ort_optim.report.terminal import print_explain, print_report
from ort_optim.report.write import check_report_path, write_report

__all__ = [
    "SCHEMA_VERSION",
    "Culprit",
    "Decision",
    "ModelFacts",
    "OutputResult",
    "PassSummary",
    "Refusal",
    "Report",
    "Rewrite",
    "StageSeconds",
    "TargetFacts",
    "TiledLayer",
    "Tiling",
    "Timing",
    "ToolFacts",
    "Verification",
    "Weighed",
    "check_report_path",
    "print_explain",
    "print_report",
    "write_report",
]
