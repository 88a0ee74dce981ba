"""What the scripts share: the model list, the counting rule, and worker processes with time limits.

ModelFile, list_models   the .onnx files of a folder tree, with input shapes from its INDEX.csv
count_nodes              the node count that all tables use
Worker                   a restartable `_ort_worker.py`
run_command              a subprocess with a time limit, as a value
"""

from __future__ import annotations

import ast
import csv
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class ModelFile:
    """One model: its path, its name below the folder, and input shapes to run it with."""

    path: Path
    name: str
    shapes: dict[str, list[int]] = field(default_factory=dict)


def list_models(folder: Path) -> list[ModelFile]:
    """All `.onnx` files below `folder`, sorted by name.

    An `INDEX.csv` there may give input shapes: columns `file` and `run_input_shapes`, the latter
    as `name:[1, 3, 8, 8]; other:[1]` (names may hold colons).
    """
    shapes: dict[str, dict[str, list[int]]] = {}
    index = folder / "INDEX.csv"
    if index.exists():
        with index.open(newline="") as lines:
            for row in csv.DictReader(lines):
                shapes[row["file"]] = parse_shapes(row["run_input_shapes"])
    models = []
    for path in sorted(folder.rglob("*.onnx")):
        name = path.relative_to(folder).as_posix()
        models.append(ModelFile(path, name, shapes.get(name, {})))
    return models


def parse_shapes(text: str) -> dict[str, list[int]]:
    """`name:[1, 3]; other:[]` -> `{"name": [1, 3], "other": []}`; what is not so is left out."""
    result = {}
    for part in text.split("; "):
        name, colon, shape = part.rpartition(":")
        if colon and shape.startswith("["):
            try:
                result[name] = list(ast.literal_eval(shape))
            except (ValueError, SyntaxError):
                continue  # a shape cut off in the index: the declared one is used
    return result


def count_nodes(model: onnx.ModelProto) -> Counter[str]:
    """How many nodes of each op type the model executes as written.

    Constant nodes are not counted. Nodes of subgraphs are. A call of a model-local function counts
    as the nodes of its body (inner calls likewise), not as a node: the body is what a session runs
    that inlines it. Ops outside the default domain are prefixed with their domain.
    """
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    bodies: dict[tuple[str, str, str], Counter[str]] = {}

    def of(nodes: Iterable[onnx.NodeProto]) -> Counter[str]:
        total: Counter[str] = Counter()
        for node in nodes:
            domain = "" if node.domain == "ai.onnx" else node.domain
            key = (node.domain, node.op_type, node.overload)
            if key in functions:
                if key not in bodies:
                    bodies[key] = of(functions[key].node)
                total += bodies[key]
                continue
            if domain or node.op_type != "Constant":
                total[f"{domain}.{node.op_type}" if domain else node.op_type] += 1
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    total += of(attribute.g.node)
                for graph in attribute.graphs:
                    total += of(graph.node)
        return total

    return of(model.graph.node)


def load_shell(path: Path) -> onnx.ModelProto:
    """The model without its external data: enough to count nodes."""
    return onnx.load(str(path), load_external_data=False)


@dataclass(frozen=True)
class Outcome:
    """What became of a subprocess. `code` is None when it ran into its time limit."""

    code: int | None
    seconds: float
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line that is not empty on stderr, else on stdout."""
        lines = [t for t in (self.stdout + "\n" + self.stderr).splitlines() if t.strip()]
        return lines[-1].strip()[:300] if lines else ""


def run_command(command: list[str], timeout_s: float, cwd: Path | None = None) -> Outcome:
    """Run `command`; past `timeout_s` it and its children are killed."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        cwd=cwd,
        start_new_session=True,  # so that the whole group can be killed
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        code = None
    return Outcome(code, time.perf_counter() - start, out, err)


class Worker:
    """A child process that answers JSON jobs; a crash or a hang costs one job, not the run."""

    def __init__(
        self,
        script: Path = HERE / "_ort_worker.py",
        timeout_s: float = 60,
        python: str = sys.executable,
    ) -> None:
        self.script = script
        self.python = python
        self.timeout_s = timeout_s
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """The answer to `job`; status `crash` or `timeout` if the worker did not give one."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [self.python, str(self.script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            self.close()
            return {"status": "crash", "detail": "worker gone before the job"}
        deadline = time.monotonic() + self.timeout_s
        line = b""
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not ready.select(left):
                    self.close()
                    return {"status": "timeout", "detail": f"no answer in {self.timeout_s} s"}
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk:
                    code = process.wait()
                    self.close()
                    return {"status": "crash", "detail": f"worker ended with code {code}"}
                line += chunk
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the worker and whatever it started."""
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            self.process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
