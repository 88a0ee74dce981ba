"""Commands and shells that run beside a job: in its folder, its environment and its container.

The dialogue after the answer {"ok": true}, lines of JSON, bytes in base 64:

    client -> {"in": DATA}   {"eof": true}   {"resize": [rows, cols]}
    keeper -> {"out": DATA}  {"err": DATA}   {"exit": code}

A client that goes away ends the command and all below it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import select
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ort_optim.cluster.keeping.children import Children
from ort_optim.cluster.keeping.control import Reader, Request, Writer
from ort_optim.cluster.keeping.processes import descendants, kill

CHUNK_BYTES = 1 << 16
LAST_BYTES = 1 << 20
"""No pipe or terminal holds more: what comes later is not from the command that has ended."""
LOOK_FOR_CLIENT_S = 0.2
LARGEST_TERMINAL = 10_000


class Shells:
    """All commands that run beside the job; `pids` are theirs, which the job does not count."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._running: dict[int, asyncio.Future[int]] = {}

    @property
    def pids(self) -> set[int]:
        """Of the commands themselves; more may be below them."""
        return set(self._running)

    def kill(self) -> None:
        """End all of them."""
        for pid, ended in list(self._running.items()):
            self._kill_tree(pid, ended)

    async def run(
        self,
        request: Request,
        reader: Reader,
        writer: Writer,
        *,
        folder: Path,
        env: Mapping[str, str],
    ) -> None:
        """Run one command for one client.

        Raises OSError: it can't be started; KeyError, TypeError, ValueError: an odd request.
        """
        argv = [str(word) for word in request["argv"]]
        env = {**env, "TERM": str(request.get("term") or "dumb")}
        if request["tty"]:
            streams = _Streams.terminal(_size(request["rows"], request["cols"]))
        else:
            streams = _Streams.pipes()
        try:
            process, ended = self._children.start(
                argv,
                folder=folder,
                env=env,
                stdin=streams.child[0],
                stdout=streams.child[1],
                stderr=streams.child[2],
                prepare=_own_terminal if request["tty"] else None,
            )
        except BaseException:
            streams.close()
            raise
        finally:
            streams.close_child()
        self._running[process.pid] = ended
        try:
            await _tell(writer, {"ok": True})
            await _converse(streams, ended, reader, writer)
        finally:
            self._kill_tree(process.pid, ended)
            del self._running[process.pid]
            streams.close()

    def _kill_tree(self, pid: int, ended: asyncio.Future[int]) -> None:
        def tree() -> list[int]:
            # Once it is reaped the number may be another process's.
            return [] if ended.done() else [pid, *descendants(pid)]

        kill(tree, self._children.reap, limit_s=1.0)


class _Streams:
    """The ends of pipes or of a terminal: three for the child, the others, non-blocking, for us."""

    def __init__(self, child: tuple[int, int, int], stdin: int, outputs: dict[str, int]) -> None:
        self.child = child
        self.outputs = outputs
        self.is_terminal = len(outputs) == 1
        self._stdin: int | None = stdin
        for descriptor in (stdin, *outputs.values()):
            os.set_blocking(descriptor, False)

    @classmethod
    def pipes(cls) -> _Streams:
        stdin, out, err = os.pipe(), os.pipe(), os.pipe()
        return cls((stdin[0], out[1], err[1]), stdin[1], {"out": out[0], "err": err[0]})

    @classmethod
    def terminal(cls, size: tuple[int, int]) -> _Streams:
        master, slave = os.openpty()
        _resize(master, size)
        return cls((slave, slave, slave), master, {"out": os.dup(master)})

    async def write(self, data: bytes) -> None:
        """Give the command all of it; without effect when it reads no more."""
        loop = asyncio.get_running_loop()
        while data and self._stdin is not None:
            try:
                data = data[os.write(self._stdin, data) :]
            except BlockingIOError:
                room = loop.create_future()
                loop.add_writer(self._stdin, _settle, room)
                try:
                    await room
                finally:
                    loop.remove_writer(self._stdin)
            except OSError:
                return

    async def end_input(self) -> None:
        """Tell the command that no more comes."""
        if self.is_terminal:
            await self.write(b"\x04")  # what control-D sends
        else:
            self._close_stdin()

    def resize(self, size: tuple[int, int]) -> None:
        """The client's terminal has another size now."""
        if self.is_terminal:
            _resize(self.outputs["out"], size)

    def close_child(self) -> None:
        for descriptor in set(self.child):
            os.close(descriptor)

    def close(self) -> None:
        self._close_stdin()
        for descriptor in self.outputs.values():
            os.close(descriptor)

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None


async def _converse(
    streams: _Streams, ended: asyncio.Future[int], reader: Reader, writer: Writer
) -> None:
    """Carry bytes both ways until the command ended or the client went away."""
    pumps = [
        asyncio.create_task(_pump_out(name, descriptor, ended, writer))
        for name, descriptor in streams.outputs.items()
    ]
    client = asyncio.create_task(_pump_in(streams, reader))
    gone = asyncio.create_task(_client_gone(writer))
    try:
        waits: list[asyncio.Future[Any]] = [ended, client, gone]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            await asyncio.wait(pumps)
            code = ended.result()
            await _tell(writer, {"exit": code if code >= 0 else 128 - code})
    finally:
        for task in (client, gone, *pumps):
            task.cancel()
        await asyncio.gather(client, gone, *pumps, return_exceptions=True)


async def _pump_out(name: str, descriptor: int, ended: asyncio.Future[int], writer: Writer) -> None:
    """All that the command writes, however slowly it is taken.

    When the command has ended, what it left in the background may hold the pipe open for ever: all
    that is in the pipe then is carried, and no end is waited for.
    """
    left = LAST_BYTES
    with contextlib.suppress(OSError):  # the client went away; or EIO, the end of a terminal
        while left > 0:
            await _readable(descriptor, ended)
            try:
                data = os.read(descriptor, CHUNK_BYTES)
            except BlockingIOError:
                if ended.done():
                    return
                continue
            if not data:
                return
            if ended.done():
                left -= len(data)
            await _tell(writer, {name: base64.b64encode(data).decode()})


async def _readable(descriptor: int, ended: asyncio.Future[int]) -> None:
    """Wait until there is something to read, or nobody who could write it."""
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()
    loop.add_reader(descriptor, _settle, arrived)
    try:
        await asyncio.wait([arrived, ended], return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(descriptor)


async def _pump_in(streams: _Streams, reader: Reader) -> None:
    """Returns when the client went away."""
    while line := await reader.readline():
        message: dict[str, Any] = json.loads(line)
        if "resize" in message:
            rows, cols = message["resize"]
            streams.resize(_size(rows, cols))
        elif message.get("eof"):
            await streams.end_input()
        else:
            await streams.write(base64.b64decode(message["in"]))


async def _client_gone(writer: Writer) -> None:
    """Returns when the client went away, also while what it sent waits to be read."""
    connection = select.poll()
    connection.register(writer.get_extra_info("socket").fileno(), 0)  # POLLHUP comes unasked
    while not connection.poll(0):
        await asyncio.sleep(LOOK_FOR_CLIENT_S)


async def _tell(writer: Writer, message: dict[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _size(rows: object, cols: object) -> tuple[int, int]:
    if not isinstance(rows, int) or not isinstance(cols, int):
        raise TypeError("the size of a terminal is two whole numbers")
    return min(max(rows, 1), LARGEST_TERMINAL), min(max(cols, 1), LARGEST_TERMINAL)


def _resize(descriptor: int, size: tuple[int, int]) -> None:
    import fcntl
    import termios

    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))


def _own_terminal() -> None:
    """In the new process: make standard input the terminal that signals of keys come from."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
