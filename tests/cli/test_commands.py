"""The table of commands, which stands for the modules until one of them is called."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from ort_optim import cli
from tests.toolbox import environment


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_the_table_says_what_the_modules_say(name: str) -> None:
    module = importlib.import_module(f"ort_optim.cli.{name}")
    assert (name, cli.COMMANDS[name]) == (module.NAME, module.HELP)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["--nonsense"], ["optimise"]])
def test_no_command_is_imported_where_none_is_called(arguments: list[str]) -> None:
    code = (
        "import atexit, sys\n"
        "from ort_optim.cli import main\n"
        "heavy = {'numpy', 'onnx', 'rich'}\n"
        "atexit.register(lambda: print(sorted(heavy & sys.modules.keys())))\n"
        f"main({arguments})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "[]"
