"""Reports: what `optimize` did, as data (model.py) and as text, Markdown, HTML and JSON."""

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
    Timing,
    ToolFacts,
    Verification,
)

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
    "Timing",
    "ToolFacts",
    "Verification",
]
