"""Commands and shells beside a job: all bytes come through, and nothing of them stays behind."""

from __future__ import annotations

import os
import time

import pytest

from ort_optim.cluster.keeping.debug_session import DebugSession
from ort_optim.cluster.keeping.supervisor import Supervisor
from ort_optim.cluster.states import State
from ort_optim.errors import InputError
from tests.cluster.conftest import Jobs, until

MIB = 2**20


@pytest.fixture
def held(jobs: Jobs) -> Supervisor:
    """A job that failed and is held."""
    supervisor = jobs.start("false", name="held")
    assert jobs.settled(supervisor).state is State.HELD
    return supervisor


def test_a_command_runs_in_folder_and_environment_of_the_job(jobs: Jobs) -> None:
    supervisor = jobs.start("sh", "-c", "touch here; exit 1", env={"MINE": "yes"})
    jobs.settled(supervisor)
    with supervisor.debug(
        ["sh", "-c", "ls; echo $MINE $ORT_OPTIM_JOB; cat >&2; exit 7"]
    ) as session:
        assert session.communicate(b"input") == (7, b"here\nyes job\n", b"input")
    assert supervisor.status().state is State.HELD


def test_much_input_and_output_come_through_whole(held: Supervisor) -> None:
    data = bytes(range(256)) * 80_000  # more than all buffers on the way
    with held.debug(["cat"]) as session:
        code, out, err = session.communicate(data)
    assert (code, out == data, err) == (0, True, b"")


def test_a_command_that_reads_nothing_does_not_hang_its_client(held: Supervisor) -> None:
    with held.debug(["true"]) as session:
        assert session.communicate(b"x" * 4 * MIB)[0] == 0


def test_a_signal_counts_as_128_and_more(held: Supervisor) -> None:
    with held.debug(["sh", "-c", "kill -TERM $$"]) as session:
        assert session.communicate()[0] == 128 + 15


def test_a_background_process_does_not_hold_the_session(held: Supervisor) -> None:
    with held.debug(["sh", "-c", "sleep 600 & echo done"]) as session:
        assert session.communicate()[:2] == (0, b"done\n")


def read_until(session: DebugSession, words: bytes) -> bytes:
    text = b""
    while words not in text:
        message = session.receive(30.0)
        assert message is not None, text
        assert message[0] == "out", (message, text)
        text += message[1]
    return text


def test_a_shell_has_a_terminal_that_keys_and_sizes_reach(held: Supervisor) -> None:
    with held.debug(["sh"], tty=True, rows=33, cols=77, term="vt100") as session:
        session.send(b"stty size; echo $TERM-$((1+1))\n")
        assert b"33 77" in read_until(session, b"vt100-2")
        session.resize(44, 99)
        session.send(b"stty size\n")
        read_until(session, b"44 99")
        session.send(b"echo started$((3)); sleep 600\n")
        read_until(session, b"started3")
        session.send(b"\x03")
        read_until(session, b"^C")
        session.send(b"exit 9\n")
        while session.receive(30.0) is not None:
            pass
        assert session.exit_code == 9


def test_a_client_that_goes_away_ends_its_command(held: Supervisor, jobs: Jobs) -> None:
    session = held.debug(["sh", "-c", "setsid sleep 601 & sleep 602"])
    until(lambda: len(jobs.left()) >= 2)
    session.close()
    until(lambda: not jobs.left())
    assert held.status().state is State.HELD


def test_a_shell_stays_over_a_restart_and_is_not_the_jobs(held: Supervisor, jobs: Jobs) -> None:
    with held.debug(["cat"]) as session:
        assert held.processes() == []
        held.restart()
        assert jobs.settled(held).start == 2
        assert session.communicate(b"still here")[1] == b"still here"


def test_a_command_that_is_not_there_is_refused(held: Supervisor) -> None:
    with pytest.raises(InputError, match="No such file"):
        held.debug(["no-such-program-at-all"])
    assert held.status().state is State.HELD


def test_a_release_ends_shells(held: Supervisor, jobs: Jobs) -> None:
    session = held.debug(["sleep", "600"])
    held.release()
    assert not jobs.left()
    while session.receive(30.0) is not None:
        pass
    assert session.exit_code != 0


def test_nothing_is_left_to_debug_in_a_job_that_is_over(jobs: Jobs) -> None:
    supervisor = jobs.start("true")
    jobs.settled(supervisor)
    with pytest.raises(InputError, match="DONE: nothing is left to debug"):
        supervisor.debug(["true"])
    assert supervisor.processes() == []


def all_of(session: DebugSession, pause_s: float) -> tuple[int | None, bytes]:
    """Exit code and output, taken slowly."""
    time.sleep(10 * pause_s)
    text = b""
    while (message := session.receive(30.0)) is not None:
        if message[0] == "out":
            text += message[1]
        time.sleep(pause_s)
    return session.exit_code, text


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
def test_a_client_that_reads_slowly_gets_all_output(held: Supervisor, tty: bool) -> None:
    lines = 40_000  # more than all buffers on the way
    with held.debug(["seq", str(lines)], tty=tty) as session:
        code, text = all_of(session, 0.04)
    assert (code, text.split()) == (0, [b"%d" % number for number in range(1, lines + 1)])


def test_output_in_the_background_does_not_hold_the_session(held: Supervisor) -> None:
    with held.debug(["sh", "-c", "yes & echo $$"]) as session:
        assert session.communicate()[0] == 0


def test_a_client_goes_away_while_its_command_does_not_read(held: Supervisor, jobs: Jobs) -> None:
    session = held.debug(["sleep", "600"])
    session.send(bytes(MIB))  # more than its standard input holds
    session.close()
    until(lambda: not jobs.left())
    assert (held.folder / "keeper.log").read_bytes() == b""


def test_a_terminal_whose_input_ends_tells_the_shell(held: Supervisor) -> None:
    with held.debug(["cat"], tty=True) as session:
        session.send(b"line\n")
        read_until(session, b"line\r\nline")
        session.end_input()
        while session.receive(30.0) is not None:
            pass
        assert session.exit_code == 0


def test_a_client_may_have_any_number_of_open_files(held: Supervisor) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = 1100  # more than `select` knows
    if hard < 2 * many:
        pytest.skip("no more files can be opened here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * many), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(many)]
    try:
        with held.debug(["true"]) as session:
            assert session.communicate()[0] == 0
    finally:
        for descriptor in files:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
