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
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ort_optim.cluster.keeping.children import Children
from ort_optim.cluster.keeping.control import Reader, Request, Writer
from ort_optim.cluster.keeping.processes import descendants, kill

CHUNK_BYTES = 1 << 16
LAST_OUTPUT_S = 0.5
LARGEST_TERMINAL = 10_000


class Shells:
    """All commands that run beside the job; `pids` are theirs, which the job does not count."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self.pids: set[int] = set()

    def kill(self) -> None:
        """End all of them."""
        for pid in list(self.pids):
            self._kill_tree(pid)

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
        self.pids.add(process.pid)
        try:
            await _tell(writer, {"ok": True})
            await _converse(streams, ended, reader, writer)
        finally:
            if not ended.done():
                self._kill_tree(process.pid)
            self.pids.discard(process.pid)
            streams.close()

    def _kill_tree(self, pid: int) -> None:
        def tree() -> list[int]:
            return [pid, *descendants(pid)] if pid in self.pids and _is_there(pid) else []

        kill(tree, self._children.reap, limit_s=1.0)


class _Streams:
    """The ends of pipes or of a terminal: three for the child, the others for us."""

    def __init__(self, child: tuple[int, int, int], stdin: int, outputs: dict[str, int]) -> None:
        self.child = child
        self.stdin: BinaryIO = os.fdopen(stdin, "wb", buffering=0)
        self.outputs: dict[str, BinaryIO] = {
            name: os.fdopen(descriptor, "rb", buffering=0) for name, descriptor in outputs.items()
        }
        self.is_terminal = len(outputs) == 1

    @classmethod
    def pipes(cls) -> _Streams:
        stdin, out, err = os.pipe(), os.pipe(), os.pipe()
        return cls((stdin[0], out[1], err[1]), stdin[1], {"out": out[0], "err": err[0]})

    @classmethod
    def terminal(cls, size: tuple[int, int]) -> _Streams:
        master, slave = os.openpty()
        _resize(master, size)
        return cls((slave, slave, slave), master, {"out": os.dup(master)})

    def close_child(self) -> None:
        for descriptor in set(self.child):
            os.close(descriptor)

    def close(self) -> None:
        for file in (self.stdin, *self.outputs.values()):
            with contextlib.suppress(OSError):
                file.close()


async def _converse(
    streams: _Streams, ended: asyncio.Future[int], reader: Reader, writer: Writer
) -> None:
    """Carry bytes both ways until the command ended or the client went away."""
    pumps = [
        asyncio.create_task(_pump_out(name, file, writer)) for name, file in streams.outputs.items()
    ]
    client = asyncio.create_task(_pump_in(streams, reader))
    try:
        waits: list[asyncio.Future[Any]] = [ended, client]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            # What it left in the background may hold the pipes open for ever.
            await asyncio.wait(pumps, timeout=LAST_OUTPUT_S)
            code = ended.result()
            await _tell(writer, {"exit": code if code >= 0 else 128 - code})
    finally:
        for task in (client, *pumps):
            task.cancel()
        await asyncio.gather(client, *pumps, return_exceptions=True)


async def _pump_out(name: str, file: BinaryIO, writer: Writer) -> None:
    loop = asyncio.get_running_loop()
    source = asyncio.StreamReader(limit=CHUNK_BYTES)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(source), file)
    try:
        # A terminal whose last user ended gives EIO, which is its end of file.
        with contextlib.suppress(ConnectionError, OSError):
            while data := await source.read(CHUNK_BYTES):
                await _tell(writer, {name: base64.b64encode(data).decode()})
    finally:
        transport.close()


async def _pump_in(streams: _Streams, reader: Reader) -> None:
    """Returns when the client went away."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, streams.stdin
    )
    sink = asyncio.StreamWriter(transport, protocol, None, loop)
    try:
        while line := await reader.readline():
            message: dict[str, Any] = json.loads(line)
            if "resize" in message:
                rows, cols = message["resize"]
                if streams.is_terminal:
                    _resize(streams.outputs["out"].fileno(), _size(rows, cols))
            elif message.get("eof"):
                if streams.is_terminal:
                    sink.write(b"\x04")  # what control-D sends
                else:
                    sink.close()
            else:
                with contextlib.suppress(ConnectionError, OSError):  # the command reads no more
                    sink.write(base64.b64decode(message["in"]))
                    await sink.drain()
    finally:
        transport.abort()


async def _tell(writer: Writer, message: dict[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


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


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
