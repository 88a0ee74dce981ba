"""Lower folders never import higher ones, and heavy libraries have few doors."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.toolbox import ROOT, environment

PACKAGE = ROOT / "ort_optim"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"_version", "errors"}),
    frozenset({"config"}),
    frozenset({"graph", "hardware", "memory", "report"}),
    frozenset({"kernels"}),
    frozenset({"engine"}),
    frozenset({"compiler"}),
    frozenset({"runtime"}),
    frozenset({"tiling"}),
    frozenset({"passes", "verify"}),
    frozenset({"reference", "rewriter"}),
    frozenset({"search"}),
    frozenset({"trial"}),
    frozenset({"assembly"}),
    frozenset({"checkpoints"}),
    frozenset({"pipeline"}),
    frozenset({"reduction"}),
    frozenset({"cluster"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
"""From the bottom up. A part may import what stands below it, and itself."""

SIBLINGS = {("report", "hardware"), ("hardware", "report")}
"""Parts of one layer that know each other: none, but these may."""

TYPE_CHECKING_ONLY = {"__init__"}  # its imports happen when a name is first used

DOORS = {
    # our worker's sessions, and the user's own
    "onnxruntime": ("engine", "runtime/session.py", "runtime/reference.py"),
    "onnxruntime_extensions": ("runtime/reference.py",),
    "onnx_graphsurgeon": ("graph/view.py",),
    "llvmlite.binding": ("compiler/llvm.py",),
    "ray": ("cluster/ray/ray_backend.py",),
}
"""The only places that import a library, or a module of it."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """The folder or top-level module a file belongs to."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imports(path: Path) -> Iterator[str]:
    """The full names of all that a file imports, at any depth."""
    folder = ["ort_optim", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def level(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize(
    "path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)).removesuffix(".py")
)
def test_a_module_imports_only_what_is_below_it(path: Path) -> None:
    own = part(path)
    if own in TYPE_CHECKING_ONLY:
        return
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package != "ort_optim":
            continue
        other = rest.split(".")[0]
        if other not in (own, "__version__"):
            assert level(other) < level(own) or (own, other) in SIBLINGS, f"imports {name}"


@pytest.mark.parametrize(("library", "doors"), DOORS.items())
def test_a_heavy_library_has_few_doors(library: str, doors: tuple[str, ...]) -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        if any(f"{name}.".startswith(f"{library}.") for name in imports(path))
    }
    assert users
    assert all(any(f"{user}/".startswith(f"{door}/") for door in doors) for user in users), users


def test_every_part_stands_in_a_layer() -> None:
    for path in modules():
        if part(path) not in TYPE_CHECKING_ONLY:
            level(part(path))


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import ort_optim", ("numpy", "onnx", "onnxruntime")),
        ("from ort_optim.cli import main; main(['probe'])", ("onnxruntime", "onnx_graphsurgeon")),
        ("import ort_optim.pipeline", ("onnxruntime",)),
    ],
)
def test_what_is_not_needed_is_not_loaded(statement: str, heavy: tuple[str, ...]) -> None:
    code = f"{statement}\nimport sys\nassert not {set(heavy)!r} & sys.modules.keys()"
    subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
