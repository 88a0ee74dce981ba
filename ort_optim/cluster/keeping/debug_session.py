"""The client's end of a command or shell that runs beside a held job."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
from multiprocessing.connection import wait  # unlike `select`, for any number of open files
from typing import Any, Literal, Protocol

Stream = Literal["out", "err", "exit"]
LONGEST_MESSAGE = 1 << 20


class Terminal(Protocol):
    """What can be shown on a terminal: a DebugSession, or one that is reached some other way."""

    def send(self, data: bytes) -> None:
        """As DebugSession.send."""

    def end_input(self) -> None:
        """As DebugSession.end_input."""

    def resize(self, rows: int, cols: int) -> None:
        """As DebugSession.resize."""

    def receive(self, timeout_s: float | None = None) -> tuple[Stream, bytes] | None:
        """As DebugSession.receive."""

    def close(self) -> None:
        """As DebugSession.close."""


class DebugSession:
    """A running command: bytes in, bytes out, and its exit code.

    `receive` gives ("out", bytes), ("err", bytes), in the end ("exit", b"CODE"), where a signal N
    counts as 128 + N. Closing it ends the command. One thread may receive while others send.
    """

    def __init__(self, connection: socket.socket, early: bytes = b"") -> None:
        self._connection = connection
        self._buffer = bytearray(early)
        self._sending = threading.RLock()  # a handler of SIGWINCH may come in between
        self.exit_code: int | None = None

    def send(self, data: bytes) -> None:
        """Give input to the command; without effect once it ended."""
        for start in range(0, len(data), LONGEST_MESSAGE // 2):
            part = data[start : start + LONGEST_MESSAGE // 2]
            self._tell({"in": base64.b64encode(part).decode()})

    def end_input(self) -> None:
        """No more input follows."""
        self._tell({"eof": True})

    def resize(self, rows: int, cols: int) -> None:
        """The terminal has another size now."""
        self._tell({"resize": [rows, cols]})

    def receive(self, timeout_s: float | None = None) -> tuple[Stream, bytes] | None:
        """What comes next; None when nothing came within the time (None: no limit).

        After ("exit", ...) nothing comes. A keeper that dies meanwhile counts as exit 255.
        """
        if self.exit_code is not None:
            return None
        while b"\n" not in self._buffer:
            if not wait([self._connection], timeout_s):
                return None
            try:
                data = self._connection.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                return self._ended(255)
            self._buffer += data
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        message: dict[str, Any] = json.loads(line)
        if "exit" in message:
            return self._ended(int(message["exit"]))
        stream: Stream = "out" if "out" in message else "err"
        return stream, base64.b64decode(message[stream])

    def communicate(self, data: bytes = b"") -> tuple[int, bytes, bytes]:
        """Give all input, wait for the end: exit code, output, errors."""
        texts: dict[Stream, bytearray] = {"out": bytearray(), "err": bytearray()}

        def feed() -> None:
            self.send(data)
            self.end_input()

        # Beside the reading: a command that answers before it has read all would block both.
        threading.Thread(target=feed, daemon=True).start()
        while (message := self.receive()) is not None:
            stream, content = message
            if stream == "exit":
                break
            texts[stream] += content
        assert self.exit_code is not None
        return self.exit_code, bytes(texts["out"]), bytes(texts["err"])

    def close(self) -> None:
        """End the command if it still runs."""
        self._connection.close()

    def __enter__(self) -> DebugSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ended(self, code: int) -> tuple[Stream, bytes]:
        self.exit_code = code
        self.close()
        return "exit", str(code).encode()

    def _tell(self, message: dict[str, Any]) -> None:
        if self.exit_code is not None:
            return
        try:
            with self._sending:
                self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:  # it ended; `receive` tells how
            return


def shell() -> str:
    """The shell the user likes, where it is there."""
    wanted = os.environ.get("SHELL", "")
    return wanted if os.access(wanted, os.X_OK) else "/bin/sh"
