"""The keeper's ear: a Unix socket in a private folder; requests and answers are lines of JSON.

{"do": "status"}                                   -> {"ok": true, "status": {...}}
{"do": "restart" | "continue" | "stop" | "release"} -> the same, when it is done
{"do": "processes"}                                -> {"ok": true, "processes": [...]}
{"do": "run", "argv": [...], "tty": true, "rows": 24, "cols": 80, "term": "xterm"}
                                                   -> {"ok": true}, then a dialogue (shells.py)
what can't be obeyed                               -> {"ok": false, "error": "one line"}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ort_optim.errors import InputError, OrtOptimError

LONGEST_LINE = 4 << 20
LONGEST_SOCKET_BYTES = 100  # the system's limit is 104 or 108, its end included
FLUSH_S = 2.0
TOUCH_S = 3600.0

Request = dict[str, Any]
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


class Control:
    """Listens, and gives each request to the keeper.

    Args:
        answer: Request -> fields of the answer; what it raises is told.
        take_over: For "run": it speaks with the client until the end.
    """

    def __init__(
        self,
        answer: Callable[[Request], Awaitable[dict[str, Any]]],
        take_over: Callable[[Request, Reader, Writer], Awaitable[None]],
    ) -> None:
        self._answer = answer
        self._take_over = take_over
        self._talks: set[asyncio.Task[None]] = set()
        self._touched = time.monotonic()
        self.folder = _private_folder()

    async def listen(self) -> None:
        """Begin to listen at `folder`/socket."""
        path = self.folder / "socket"
        self._server = await asyncio.start_unix_server(self._talk, path, limit=LONGEST_LINE)
        path.chmod(0o600)

    def keep(self) -> None:
        """Now and then: what nobody touches for days is removed from folders such as /tmp."""
        if time.monotonic() - self._touched > TOUCH_S:
            self._touched = time.monotonic()
            for path in (self.folder, self.folder / "socket"):
                with contextlib.suppress(OSError):
                    os.utime(path)

    async def close(self) -> None:
        """Let answers out that are under way, then remove the socket."""
        self._server.close()
        if self._talks:
            await asyncio.wait(self._talks, timeout=FLUSH_S)
        for talk in self._talks:
            talk.cancel()
        with contextlib.suppress(OSError):
            (self.folder / "socket").unlink()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    async def _talk(self, reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            if _peer_is_us(writer):
                await self._serve(reader, writer)
        except (ConnectionError, asyncio.LimitOverrunError, ValueError):
            pass  # the client went away, or never was one of ours
        finally:
            self._talks.discard(task)
            writer.close()

    async def _serve(self, reader: Reader, writer: Writer) -> None:
        while line := await reader.readline():
            request = json.loads(line)
            if not isinstance(request, dict):
                return
            try:
                if request.get("do") == "run":
                    await self._take_over(request, reader, writer)
                    return
                fields = {"ok": True, **await self._answer(request)}
            except (OrtOptimError, OSError) as error:
                fields = {"ok": False, "error": " ".join(str(error).split())}
            except (KeyError, TypeError, ValueError):
                fields = {"ok": False, "error": "not a request that this keeper knows"}
            writer.write(json.dumps(fields).encode() + b"\n")
            await writer.drain()


class Client:
    """The other end: one connection, one request after another."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        """Connect. Raises OSError: nobody listens."""
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.connection.settimeout(timeout_s)
        self.early = b""
        try:
            self.connection.connect(str(path))
        except BaseException:
            self.connection.close()
            raise

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises InputError: it was refused; OSError: no answer came in time, or the keeper died.
        """
        self.connection.sendall(json.dumps(request).encode() + b"\n")
        text = bytearray(self.early)
        while b"\n" not in text:
            part = self.connection.recv(1 << 16)
            if not part:
                raise ConnectionResetError("the keeper ended")
            text += part
        line, _, rest = bytes(text).partition(b"\n")
        self.early = rest
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise InputError(str(answer["error"]))
        return answer

    def keeper_pid(self) -> int | None:
        """The keeper's process as seen from here, also when it is in a container (Linux)."""
        if not hasattr(socket, "SO_PEERCRED"):
            return None
        return _peer(self.connection)[0] or None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def _private_folder() -> Path:
    """A new folder, 0700, whose name is short enough for a socket in it."""
    folder = Path(tempfile.mkdtemp(prefix="ort_optim-"))
    if len(os.fsencode(folder / "socket")) > LONGEST_SOCKET_BYTES:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="ort_optim-", dir="/tmp"))
    return folder


def _peer_is_us(writer: Writer) -> bool:
    connection = writer.get_extra_info("socket")
    return not hasattr(socket, "SO_PEERCRED") or _peer(connection)[1] == os.geteuid()


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid
