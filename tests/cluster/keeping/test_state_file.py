"""What is read from state.json is checked: damaged, forged or newer, it is refused in one line."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ort_optim.cluster.keeping.state_file import StateRecord, read_state, write_state
from ort_optim.cluster.keeping.status import Fault
from ort_optim.cluster.keeping.work_folder import WorkFolder
from ort_optim.cluster.states import State
from ort_optim.errors import InputError

RECORD = StateRecord(
    id="a",
    attempt=1,
    start=2,
    state=State.HELD,
    cause="exit 1",
    fault=Fault.EXIT,
    frozen=False,
    container="4026531836",
    command=("sh", "-c", "exit 1"),
    since_s=1.5,
    pid=77,
    pid_started="123",
    host="here",
    nonce="00",
    run="/nowhere/at-all",
    cpus=(0, 3),
    devices=(1,),
)


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    folder = WorkFolder(tmp_path / "job")
    folder.make()
    write_state(folder, RECORD)
    return folder


def forge(folder: WorkFolder, **changes: object) -> None:
    folder.state.write_text(json.dumps({**json.loads(folder.state.read_text()), **changes}))


def test_what_is_written_is_read(folder: WorkFolder) -> None:
    assert read_state(folder) == RECORD
    lost = dataclasses.replace(RECORD, state=State.LOST, fault=None, pid=None, run="")
    write_state(folder, lost)
    assert read_state(folder) == lost


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "newer ort_optim"),
        ({"version": "1"}, "not a state file"),
        ({"version": True}, "not a state file"),
        ({"extra": 1}, "not a state file .*extra"),
        ({"state": "WONDERFUL"}, "a field is not what"),
        ({"fault": "fate"}, "a field is not what"),
        ({"attempt": "1"}, "a field is not what"),
        ({"start": True}, "a field is not what"),
        ({"cpus": {}}, "a field is not what"),
        ({"command": [1]}, "a field is not what"),
        ({"attempt": 0}, "contradict"),
        ({"pid": 1}, "contradict"),
        ({"state": "QUEUED"}, "contradict"),
        ({"state": "DONE"}, "contradict"),
        ({"run": ""}, "contradict"),
        ({"run": "relative"}, "not where a keeper puts one"),
        ({"run": "/tmp/../etc"}, "not where a keeper puts one"),
        ({"run": "/tmp"}, "not in a private folder"),
    ],
)
def test_a_forged_state_is_refused_in_one_line(
    folder: WorkFolder, change: dict[str, object], words: str
) -> None:
    forge(folder, **change)
    with pytest.raises(InputError, match=words) as caught:
        read_state(folder)
    assert "\n" not in str(caught.value)


def test_a_file_that_others_can_write_is_refused(folder: WorkFolder) -> None:
    folder.state.chmod(0o620)
    with pytest.raises(InputError, match="others can write it"):
        read_state(folder)
    folder.state.chmod(0o600)
    folder.path.chmod(0o777)
    with pytest.raises(InputError, match="others can write it"):
        read_state(folder)


def test_what_is_no_plain_file_is_refused(folder: WorkFolder, tmp_path: Path) -> None:
    folder.state.rename(tmp_path / "real")
    with pytest.raises(InputError, match="no job to be found there"):
        read_state(folder)
    folder.state.symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match=r"state\.json"):
        read_state(folder)
    folder.state.unlink()
    os.mkfifo(folder.state)
    with pytest.raises(InputError, match="no plain file"):
        read_state(folder)


def test_a_folder_that_is_a_link_is_refused(folder: WorkFolder, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder.path)
    with pytest.raises(InputError, match="not what was made there"):
        read_state(WorkFolder(tmp_path / "link"))


def test_a_huge_file_is_refused(folder: WorkFolder) -> None:
    with folder.state.open("ab") as file:
        file.truncate(5 << 20)
    with pytest.raises(InputError, match="bytes, not what was written"):
        read_state(folder)


def test_deep_nesting_is_refused(folder: WorkFolder) -> None:
    folder.state.write_text("[" * 100_000)
    with pytest.raises(InputError, match="damaged"):
        read_state(folder)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


@given(data=st.data())
def test_any_damage_is_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    values = {"version": 1, **dataclasses.asdict(RECORD)}
    values[data.draw(st.sampled_from(sorted(values)))] = data.draw(VALUES)
    text = json.dumps(values).encode()
    cut = data.draw(st.integers(0, len(text)))
    folder = WorkFolder(tmp_path_factory.mktemp("state"))
    folder.path.chmod(0o700)
    for content in (text, text[:cut], text[:cut] + data.draw(st.binary(max_size=8)) + text[cut:]):
        folder.state.write_bytes(content)
        folder.state.chmod(0o600)
        try:
            told = str(read_state(folder).state)
        except InputError as error:
            told = str(error)
        assert len(told.splitlines()) == 1
