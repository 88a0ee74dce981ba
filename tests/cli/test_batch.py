"""The group of `batch` commands: each is imported alone, and is what the list says."""

import importlib
import subprocess
import sys

import pytest

from ort_optim.cli import batch, main
from ort_optim.cli.batch.patch_arguments import patch_of
from ort_optim.errors import InputError
from tests.toolbox import ROOT


@pytest.mark.parametrize("name", batch.COMMANDS)
def test_the_list_and_the_command_say_the_same(name):
    module = importlib.import_module(f"ort_optim.cli.batch.{name}")
    assert (name, batch.COMMANDS[name]) == (module.NAME, module.HELP)


@pytest.mark.parametrize("name", batch.COMMANDS)
def test_each_command_has_a_help(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["batch", name, "--help"])
    assert f"batch {name}" in capsys.readouterr().out


def test_an_unknown_command_and_a_missing_argument_are_one_line(capsys):
    for words in (["batch", "fly"], ["batch"], ["batch", "restart"]):
        assert main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["status", "restart", "debug"])
def test_commands_that_need_no_ray_do_not_import_it(name):
    words = ["batch", name, "--state", "/nowhere", *([] if name == "status" else ["job"])]
    script = (
        f"import sys; from ort_optim.cli import main; main({words})\n"
        "print(*(each for each in ('ray', 'onnx', 'onnxruntime') if each in sys.modules))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert told.stdout.strip() == ""
    assert "no jobs were submitted there" in told.stderr


class _Record:
    id = "x"

    class job:  # noqa: N801
        model = "m.onnx"


def _patch(**given):
    class Arguments:
        option, file, env, model = [], [], [], ""

    for name, value in given.items():
        setattr(Arguments, name, value)
    return patch_of(Arguments, _Record)


def test_options_are_numbers_lists_flags_or_text_and_can_be_taken_away():
    patch = _patch(option=["threads=2", 'disable=["tiling"]', "no-timing=true", "rtol="])
    assert patch.options == {
        "threads": 2,
        "disable": ["tiling"],
        "no-timing": True,
        "rtol": None,
    }


def test_a_file_that_may_be_run_still_may(tmp_path):
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "data").write_text("x")
    patch = _patch(file=[f"{tmp_path}/tool:bin/tool", f"{tmp_path}/data:data"])
    assert [(file.destination, file.executable) for file in patch.files] == [
        ("bin/tool", True),
        ("data", False),
    ]


def test_a_file_that_no_row_of_the_journal_can_hold_is_refused(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(InputError, match=r"2048 MiB.*`batch debug JOB .*cat > data"):
        _patch(file=[f"{tmp_path}/huge:data"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"option": ["flies=1"]}, "no option flies"),
        ({"option": ["threads"]}, "write --option K=V"),
        ({"option": ["threads=many"]}, "threads"),
        ({"env": ["=x"]}, "write --env K=V"),
        ({"file": ["only"]}, "write --file SRC:DST"),
        ({"file": ["/no/such:x"]}, "/no/such"),
    ],
)
def test_bad_patches_are_refused_before_anybody_is_asked(given, message):
    with pytest.raises(InputError, match=message):
        _patch(**given)
