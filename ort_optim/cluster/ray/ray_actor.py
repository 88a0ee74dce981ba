"""What runs on the job's server inside Ray: an actor around the keeper's `Supervisor`.

It is plain Python, so that it can be tested without Ray. The actor may die at any time: the keeper
does not care, and another actor finds it by its folder. Its methods run in threads of their own:
`watch` waits while orders are obeyed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ort_optim._version import __version__
from ort_optim.cluster.jobs import Job
from ort_optim.cluster.keeping.debug_session import DebugSession, Stream
from ort_optim.cluster.keeping.state_file import KEPT
from ort_optim.cluster.keeping.status import Status
from ort_optim.cluster.keeping.supervisor import Supervisor
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.ray.transfer import Parcel, collect, unpack
from ort_optim.cluster.submitting.backend import Gone, Order, OrderKind
from ort_optim.cluster.submitting.failing_part import failing_part
from ort_optim.errors import InputError, OrtOptimError

# A status, or why there is none.
Found = tuple[Status | None, Gone | None, str]


class JobActor:
    """Drives the keeper of one process of a job, on this machine.

    Args:
        folder: Of the process.
        version: Of the driver's ort_optim, which must be this one.
        fenced: The keeper ends with this actor's parent, the raylet: with the node.
    """

    def __init__(self, folder: Path, version: str, fenced: bool) -> None:
        if version != __version__:
            raise InputError(
                f"this server has ort_optim {__version__}, and the submitter {version}: "
                "install the same on all"
            )
        self._folder = folder
        self._fence_pid = os.getppid() if fenced else None
        self._sessions: dict[int, DebugSession] = {}

    def start(
        self,
        job: Job,
        placement: Placement,
        attempt: int,
        env: Mapping[str, str],
        shared: Path | None,
        parcel: Parcel | None = None,
    ) -> Found:
        """Start the process, unless its keeper is there already.

        `shared` is the state folder, where servers share it; else `parcel` has what the job reads.
        """
        found = self.attach(attempt)
        if found[1] is not Gone.NEVER:
            return found
        if shared is not None and not shared.is_dir():
            reason = f"{shared} is not on this server: share it, or submit with --transfer"
            return None, Gone.REFUSED, reason
        try:
            if parcel is not None:
                job = unpack(parcel, job, self._folder)
            status = Supervisor(self._folder).start(
                job, placement, attempt=attempt, fence_pid=self._fence_pid, env=env
            )
        except (OrtOptimError, OSError) as error:
            found = self.attach(attempt)
            if found[1] is Gone.NEVER:
                return None, Gone.REFUSED, " ".join(str(error).split())
            return found
        return status, None, ""

    def attach(self, attempt: int) -> Found:
        """The keeper of this attempt; none where another attempt, or nothing, is in the folder."""
        if not self._folder.is_dir():
            return None, Gone.NEVER, "no folder"
        try:
            status = Supervisor(self._folder).attach()
        except InputError as error:
            return None, Gone.NEVER, str(error)
        if status.attempt == attempt:
            return status, None, ""
        if status.state in KEPT:
            return None, Gone.NO_ROOM, f"attempt {status.attempt} still runs there"
        return None, Gone.NEVER, f"attempt {status.attempt} is {status.state}"

    def watch(self, known: Status, timeout_s: float) -> Status:
        """See `Supervisor.watch`."""
        return Supervisor(self._folder).watch(known, timeout_s)

    def order(self, order: Order) -> tuple[Status, str]:
        """Obey; the status after it, and why the order was refused, if it was."""
        supervisor = Supervisor(self._folder)
        try:
            if order.kind is OrderKind.PATCH:
                supervisor.patch(order.patch)
            elif order.kind is OrderKind.RESTART:
                status = supervisor.status()
                if order.start and status.start > order.start:
                    return status, ""
                return supervisor.restart(order.patch or None), ""
            elif order.kind is OrderKind.CONTINUE:
                return supervisor.resume(), ""
            elif order.kind is OrderKind.RELEASE:
                if order.archive is not None:
                    order.archive.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
                return supervisor.release(order.archive), ""
            else:
                return supervisor.stop(), ""
        except (OrtOptimError, OSError) as error:
            return supervisor.status(), " ".join(str(error).split())
        return supervisor.status(), ""

    def collect(self, job: Job) -> Parcel:
        """The output of a finished job, for the submitter to put where it belongs."""
        return collect(job, self._folder)

    def log(self, lines: int) -> str:
        """The last lines of the job's log."""
        return Supervisor(self._folder).log(lines)

    def status(self) -> Status:
        """How the process stands now."""
        return Supervisor(self._folder).status()

    def processes(self) -> list[dict[str, Any]]:
        """See `Supervisor.processes`."""
        return Supervisor(self._folder).processes()

    def failing_part(self) -> str:
        """See `failing_part`."""
        return failing_part(self._folder)

    # A debug shell, by small calls

    def debug_open(
        self, argv: Sequence[str], tty: bool, rows: int, cols: int, term: str
    ) -> tuple[int, str]:
        """Begin a command beside the job: its number, or 0 and why there is none."""
        try:
            session = Supervisor(self._folder).debug(argv, tty=tty, rows=rows, cols=cols, term=term)
        except (OrtOptimError, OSError) as error:
            return 0, str(error)
        number = len(self._sessions) + 1
        self._sessions[number] = session
        return number, ""

    def debug_send(self, number: int, data: bytes) -> None:
        """Input for it; none: no more follows."""
        session = self._sessions[number]
        if data:
            session.send(data)
        else:
            session.end_input()

    def debug_resize(self, number: int, rows: int, cols: int) -> None:
        self._sessions[number].resize(rows, cols)

    def debug_receive(self, number: int, timeout_s: float) -> tuple[Stream, bytes] | None:
        """What it put out next; None when nothing came in time."""
        return self._sessions[number].receive(timeout_s)

    def debug_close(self, number: int) -> None:
        self._sessions[number].close()
