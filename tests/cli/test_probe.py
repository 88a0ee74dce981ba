from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from ort_optim.cli import probe
from ort_optim.errors import InputError
from ort_optim.hardware import Gpu, Target, detect, from_json, load_target, shipped_targets, to_json


@pytest.fixture(autouse=True)
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Measuring replaced by fixed figures; gives the `refresh` of every call."""
    calls: list[bool] = []

    def measure(target: Target, *, refresh: bool = False) -> Target:
        calls.append(refresh)
        return replace(
            target,
            peak_gflops=117.5,
            core_bandwidth_gbs=20.25,
            memory_bandwidth_gbs=35.0,
            measured_at="2026-01-02T03:04:05+00:00",
        )

    monkeypatch.setattr(probe, "measure", measure)
    return calls


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    probe.add_arguments(parser)
    return probe.run(parser.parse_args(arguments))


def test_json_of_this_machine_can_be_fed_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--json") == 0
    first = capsys.readouterr().out
    path = tmp_path / "facts.json"
    path.write_text(first)
    assert run("--json", "--target", str(path)) == 0
    again = capsys.readouterr().out
    assert from_json(again) == replace(from_json(first), name="facts")
    assert from_json(first).peak_gflops == 117.5


@pytest.mark.parametrize("name", shipped_targets())
def test_shipped_target_is_printed_both_ways(
    name: str, capsys: pytest.CaptureFixture[str], measurements: list[bool]
) -> None:
    assert run("--target", name, "--json") == 0
    assert from_json(capsys.readouterr().out) == load_target(name)
    assert run("--target", name) == 0
    table = capsys.readouterr().out
    assert name in table
    assert "not measured" in table
    assert measurements == []


def test_table_labels_measured_figures_with_their_date(
    capsys: pytest.CaptureFixture[str], measurements: list[bool]
) -> None:
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("measured" in line and "117.5 GFLOP/s" in line for line in lines)
    assert any("measured" in line and "20.2 GB/s" in line for line in lines)
    assert any("2026-01-02T03:04:05" in line for line in lines)
    assert measurements == [False]


def test_measure_option_measures_again(measurements: list[bool]) -> None:
    assert run("--measure", "--json") == 0
    assert measurements == [True]


def test_table_shows_limits_gpus_and_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = replace(
        detect(),
        memory_bytes=16 << 30,
        memory_limit_bytes=3 << 29,
        cores=1,
        cpu_quota=1.5,
        gpus=(Gpu(3, "Some [bold]GPU", 80 << 30, "9.0"),),
        warnings=("the [red]caches are odd",),
    )
    path = tmp_path / "facts.json"
    path.write_text(to_json(target))
    assert run("--target", str(path)) == 0
    table = capsys.readouterr().out
    assert "limited to 1.50 GiB" in table
    assert "quota 1.5 CPUs" in table
    assert "Some [bold]GPU" in table
    assert "warning: the [red]caches are odd" in table


def test_a_target_nothing_is_known_of_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "facts.json"
    path.write_text('{"schema_version": 1, "arch": "z80"}')
    assert run("--target", str(path)) == 0
    assert "unknown" in capsys.readouterr().out


def test_another_machine_can_not_be_measured() -> None:
    with pytest.raises(InputError, match="cortex-a53"):
        run("--measure", "--target", "cortex-a53")


def test_bad_facts_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps({"schema_version": 1, "arch": "x86_64", "core": 4}))
    with pytest.raises(InputError, match=r"unknown field 'core', did you mean cores\?"):
        run("--target", str(path))
