"""A process that calls our optimizer or onnxslim through Python, for counts and times.

One JSON job a line on stdin, one JSON answer a line on stdout. Jobs (key `do`): `import_ours`,
`import_onnxslim` (so that no call pays for the import), `ours`, `onnxslim`, the latter two with
`source`, `target` and `options`. Answers hold `status` (ok, fails), the call's `seconds` and the
largest `peak_bytes` so far of this process or a child that has ended.

Started by `_common.Worker` with the Python of the environment that has the tool.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any


def import_ours(_: dict[str, Any]) -> None:
    """Load the package and, since it loads its names when they are used, `optimize`."""
    _ = importlib.import_module("ort_optim").optimize


def import_onnxslim(_: dict[str, Any]) -> None:
    """Load onnxslim, and ONNX Runtime, which it would otherwise load inside its check."""
    importlib.import_module("onnxslim")
    importlib.import_module("onnxruntime")


def ours(job: dict[str, Any]) -> None:
    """`ort_optim.optimize` with the job's options."""
    package = importlib.import_module("ort_optim")
    package.optimize(job["source"], job["target"], **job["options"])


def onnxslim(job: dict[str, Any]) -> None:
    """`onnxslim.slim`, with its own check of the outputs if the options say so."""
    package = importlib.import_module("onnxslim")
    package.slim(job["source"], job["target"], **job["options"])


PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
JOBS = {
    "import_ours": import_ours,
    "import_onnxslim": import_onnxslim,
    "ours": ours,
    "onnxslim": onnxslim,
}


def main() -> None:
    """Answer jobs until stdin closes."""
    # The tools print tables on file descriptor 1: keep the real one for answers alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        start = time.perf_counter()
        try:
            JOBS[job["do"]](job)
            answer = {"status": "ok", "detail": ""}
            if "target" in job and not Path(job["target"]).exists():
                answer = {"status": "fails", "detail": "wrote nothing"}
        except Exception as error:
            text = " ".join(str(error).split())
            answer = {"status": "fails", "detail": f"{type(error).__name__}: {text}"[:300]}
        seconds = time.perf_counter() - start
        peak_bytes = 1024 * max(resource.getrusage(who).ru_maxrss for who in PROCESSES)
        answers.write(json.dumps({**answer, "seconds": seconds, "peak_bytes": peak_bytes}) + "\n")


if __name__ == "__main__":
    main()
