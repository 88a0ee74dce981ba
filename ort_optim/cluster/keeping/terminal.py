"""The user's own terminal, joined to a command that runs beside a job."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator

from ort_optim.cluster.keeping.debug_session import Terminal

CHUNK_BYTES = 1 << 16
LOOK_AT_SIZE_S = 0.2
NO_ANSWER = 255


def size() -> tuple[int, int]:
    """Rows and columns of this terminal."""
    columns, rows = shutil.get_terminal_size()
    return rows, columns


def interact(session: Terminal, *, tty: bool, stdin: int = 0, stdout: int = 1) -> int:
    """Carry bytes between the standard streams and a session until its command ends.

    Args:
        session: Such as `Supervisor.debug` gives; it is closed in the end.
        tty: It has a terminal: ours becomes raw, so that all keys go there, control-C too.

    Returns the exit code of the command, 255 when its keeper died.
    """
    reader = threading.Thread(target=_carry_input, args=(session, stdin), daemon=True)
    with contextlib.closing(session), _raw(stdin) if tty else contextlib.nullcontext():
        resized = _watch_size() if tty else threading.Event()
        reader.start()
        while True:
            message = session.receive(LOOK_AT_SIZE_S)
            if resized.is_set():
                resized.clear()
                session.resize(*size())
            if message is None:
                continue
            stream, data = message
            if stream == "exit":
                return int(data or NO_ANSWER)
            _write(stdout if stream == "out" else sys.stderr.fileno(), data)


def _carry_input(session: Terminal, stdin: int) -> None:
    """Ends with the input, or with the program: nobody waits for it."""
    while True:
        try:
            data = os.read(stdin, CHUNK_BYTES)
        except OSError:
            data = b""
        if not data:
            session.end_input()
            return
        session.send(data)


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Give all keys to the other side; without effect where this is no terminal."""
    if not os.isatty(descriptor):
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSADRAIN)  # keeps what was typed ahead
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _watch_size() -> threading.Event:
    """Set when the terminal's size changes; only the main thread can be told."""
    changed = threading.Event()
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGWINCH"):
        signal.signal(signal.SIGWINCH, lambda *_: changed.set())
    return changed


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
