"""A person at a terminal works in the shell beside a job as in any other."""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ort_optim.cluster.keeping.supervisor import Supervisor
from ort_optim.cluster.keeping.terminal import interact
from tests.cluster.conftest import Jobs, until
from tests.toolbox import environment

fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

PERSON = """
import pathlib, sys
from ort_optim.cluster.keeping.supervisor import Supervisor
from ort_optim.cluster.keeping.terminal import interact, size
rows, cols = size()
session = Supervisor(pathlib.Path(sys.argv[1])).debug(["sh"], tty=True, rows=rows, cols=cols)
sys.exit(interact(session, tty=True))
"""


@pytest.fixture
def held(jobs: Jobs) -> Supervisor:
    supervisor = jobs.start("false")
    jobs.settled(supervisor)
    return supervisor


def set_size(terminal: int, rows: int, cols: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, cols, 0, 0))


def test_keys_sizes_and_the_exit_code_come_through(held: Supervisor) -> None:
    ours, theirs = os.openpty()
    set_size(theirs, 31, 91)
    before = termios.tcgetattr(theirs)
    person = subprocess.Popen(
        [sys.executable, "-c", PERSON, str(held.folder)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment(), "COLUMNS": "", "LINES": ""},
    )
    text = b""

    def shows(words: bytes) -> bool:
        nonlocal text
        if select.select([ours], [], [], 0.5)[0]:
            text += os.read(ours, 4096)
        return words in text

    os.write(ours, b"stty size; echo first$((1))\n")
    until(lambda: shows(b"first1"))
    assert b"31 91" in text
    set_size(theirs, 32, 92)
    person.send_signal(signal.SIGWINCH)
    until(lambda: os.write(ours, b"stty size\n") and shows(b"32 92"))
    os.write(ours, b"echo second$((2)); sleep 600\n")
    until(lambda: shows(b"second2"))
    os.write(ours, b"\x03")
    until(lambda: shows(b"^C"))
    os.write(ours, b"exit 7\n")
    assert person.wait(60) == 7
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def test_pipes_carry_a_file_through(held: Supervisor, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_bytes(bytes(range(256)) * 1000)
    with source.open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
        session = held.debug(["sh", "-c", "cat; exit 3"])
        code = interact(session, tty=False, stdin=stdin.fileno(), stdout=stdout.fileno())
    assert code == 3
    assert (tmp_path / "out").read_bytes() == source.read_bytes()
