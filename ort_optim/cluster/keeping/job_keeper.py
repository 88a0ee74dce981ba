"""What a keeper does: start the child, watch it, hold what failed, answer its owner.

    RUNNING --exit 0--> DONE                the keeper ends; its container with it
    RUNNING --fault---> HELD --restart----> RUNNING     same keeper, slot, folder, container
                             --continue---> RUNNING     the processes were frozen, not ended
                             --limit------> FAILED
    RUNNING, HELD --stop, release--> CANCELLED, FAILED
    RUNNING, HELD --fence----------> LOST   the node's master process died

There is no automatic restart. state.json tells every change before anybody is answered.

Keeper.run goes through the whole life; _start_child, _child_ended, _hold, _finish, _lose are its
turns; _look finds what no signal tells of; _answer obeys the owner, _run_beside opens shells.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import platform
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from ort_optim.cluster.keeping import affinity, container, processes
from ort_optim.cluster.keeping.children import Children
from ort_optim.cluster.keeping.control import Control, Reader, Request, Writer
from ort_optim.cluster.keeping.debug_session import shell
from ort_optim.cluster.keeping.fence import Fence
from ort_optim.cluster.keeping.shells import Shells
from ort_optim.cluster.keeping.spec import Spec, effective_spec
from ort_optim.cluster.keeping.state_file import StateRecord, to_status, write_state
from ort_optim.cluster.keeping.status import Fault, Status
from ort_optim.cluster.keeping.watch import Progress, cause_of
from ort_optim.cluster.keeping.work_folder import WorkFolder, open_to_append
from ort_optim.cluster.states import State
from ort_optim.errors import InputError

LAST_WRITE_S = 60.0
POLL_OF_THE_END_S = 0.02


class Keeper:
    """Keeps the job of one folder, in the process that calls `run`."""

    def __init__(self, folder: WorkFolder, spec: Spec, fence: Fence) -> None:
        self._folder = folder
        self._spec = spec
        self._fence = fence
        self._loop = asyncio.get_running_loop()
        self._children = Children(self._loop)
        self._shells = Shells(self._children)
        self._control = Control(self._answer, self._run_beside)
        self._progress = Progress(folder, spec.poll_s)
        self._claim = affinity.claim(spec.milli_cpus)
        self._over = asyncio.Event()
        self._news = asyncio.Event()
        self._ending = False
        self._adopts = False
        self._verdict: tuple[Fault, str] | None = None  # why we killed the child ourselves
        self._unwritten = False
        self._memory = 0
        self._kernel_kills = 0
        self._held_until = float("inf")
        self._record = StateRecord(
            id=spec.id,
            attempt=spec.attempt,
            start=0,
            state=State.RUNNING,
            cause="",
            fault=None,
            frozen=False,
            container=container.container_id() if spec.container else "",
            command=(),
            since_s=time.time(),
            pid=None,
            pid_started="",
            host=platform.node(),
            nonce=secrets.token_hex(16),
            run=str(self._control.folder),
            cpus=self._claim.cpus,
            devices=tuple(index for index, _ in spec.devices),
        )

    async def run(self, ready: Callable[[], None]) -> None:
        """Start the child, tell that we are ready, and stay until the job is over."""
        if self._claim.cpus:
            os.sched_setaffinity(0, self._claim.cpus)
        self._adopts = processes.adopt_orphans()
        self._loop.add_signal_handler(signal.SIGHUP, lambda: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._lose, "its keeper was told to end")
        self._fence.watch(self._loop, functools.partial(self._lose, "its node ended"))
        await self._control.listen()
        self._start_child(self._spec)
        ready()
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), self._spec.poll_s)
            self._look()
        deadline = time.monotonic() + LAST_WRITE_S
        while self._unwritten and not self._folder.is_gone() and time.monotonic() < deadline:
            await asyncio.sleep(self._spec.poll_s)  # a full disk: all else is over
            self._publish()
        await self._control.close()

    # Starting and ending

    def _start_child(self, spec: Spec) -> None:
        """Start the child once more. What can't be started is held, as all that fails."""
        start = self._record.start + 1
        argv = spec.argv(self._folder)
        self._verdict = None
        self._memory = 0
        self._kernel_kills = processes.kernel_kills()
        self._publish(start=start, command=argv, pid=None, pid_started="")
        try:
            with open_to_append(self._folder.log) as log:
                when = datetime.now().astimezone().isoformat(timespec="seconds")
                words = f"start {start} of attempt {spec.attempt}, {when}: {shlex.join(argv)}"
                log.write(f"--- {words}\n".encode(errors="replace"))
                log.flush()
                process, ended = self._children.start(
                    argv,
                    folder=self._folder.work,
                    env=spec.environment(self._folder, self._record.nonce),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        except (OSError, ValueError) as error:
            what, reason = (argv[0] if argv else "nothing"), str(error)
            if isinstance(error, OSError):  # its file may also be the log or the work folder
                what, reason = error.filename or what, error.strerror or reason
            self._hold(Fault.NOT_STARTED, f"not started: {shlex.quote(str(what))}: {reason}")
            return
        ended.add_done_callback(lambda future: self._child_ended(start, future.result()))
        self._progress.begin()
        self._held_until = float("inf")
        self._publish(
            state=State.RUNNING,
            cause="",
            fault=None,
            frozen=False,
            pid=process.pid,
            pid_started=processes.started(process.pid),
        )

    def _child_ended(self, start: int, code: int) -> None:
        if start != self._record.start or self._record.pid is None or self._ending:
            return
        processes.kill(self._job, self._children.reap)  # no grandchild outlives the child
        if code == 0 and self._verdict is None:
            self._finish(State.DONE, "")
            return
        killed = processes.kernel_kills() > self._kernel_kills
        self._hold(*(self._verdict or cause_of(code, kernel_killed=killed)))

    def _hold(self, fault: Fault, cause: str, *, frozen: bool = False) -> None:
        self._held_until = time.monotonic() + self._spec.hold_s
        changes: dict[str, Any] = {} if frozen else {"pid": None, "pid_started": ""}
        self._publish(state=State.HELD, fault=fault, cause=cause, frozen=frozen, **changes)

    def _finish(self, state: State, cause: str) -> None:
        """Kill all that is left, tell the last state, and let `run` return."""
        self._ending = True
        self._shells.kill()
        processes.kill(self._all, self._children.reap)
        fault = self._record.fault if state is not State.DONE else None
        self._publish(
            state=state, cause=cause, fault=fault, frozen=False, pid=None, pid_started="", run=""
        )
        self._over.set()

    def _lose(self, why: str) -> None:
        if self._ending:  # by order: without further grace
            processes.kill(self._job, self._children.reap)
        else:
            self._finish(State.LOST, why)

    # Watching

    def _look(self) -> None:
        """What has to be looked at now and then, as nothing tells of it."""
        if self._ending:
            return
        self._control.keep()
        if self._unwritten:
            self._publish()
        if self._folder.is_gone():
            self._finish(State.CANCELLED, "its folder was removed")
        elif self._fence.fired():
            self._lose("its node ended")
        elif self._record.state is State.HELD:
            self._memory = processes.resident_bytes(self._job()) if self._record.frozen else 0
            if time.monotonic() >= self._held_until:
                cause = f"{self._record.cause}; held for more than {self._spec.hold_s:g} s"
                self._finish(State.FAILED, cause)
        elif self._record.state is State.RUNNING:
            self._look_at_running()

    def _look_at_running(self) -> None:
        self._memory = processes.resident_bytes(self._job())
        limit = self._spec.memory
        if limit and self._memory > limit:
            words = f"memory limit: {_mib(self._memory)} of {_mib(limit)}"
            self._verdict = (Fault.MEMORY, words)
            processes.kill(self._job, self._children.reap)
        elif self._progress.look() >= self._spec.timeout_s:
            processes.freeze(self._job)
            words = f"no progress for {self._spec.timeout_s:g} s: stopped, its memory kept"
            self._hold(Fault.NO_PROGRESS, words, frozen=True)

    def _all(self) -> list[int]:
        """What must not be left: where orphans are not adopted, only their mark tells them."""
        below = processes.descendants(os.getpid())
        return below if self._adopts else [*below, *processes.marked(self._record.nonce)]

    def _job(self) -> list[int]:
        return processes.descendants(os.getpid(), spare=self._shells.pids)

    # Answering

    async def _answer(self, request: Request) -> dict[str, Any]:
        action = request["do"]
        if action == "processes":
            found = [processes.describe(pid) for pid in self._job()]
            return {"processes": [facts for facts in found if facts]}
        if self._ending and action in ("stop", "release"):
            await self._over.wait()
            action = "status"
        if self._ending and action not in ("status", "watch"):
            raise InputError(f"job {self._spec.id} is ending")
        if action == "restart":
            self._restart()
        elif action == "continue":
            self._continue()
        elif action in ("stop", "release"):
            await self._end(released=action == "release")
        elif action == "watch":
            await self._wait_for_change(request["known"], float(request["timeout_s"]))
        elif action != "status":
            raise KeyError(action)
        return {"status": self._status().to_dict()}

    def _status(self) -> Status:
        return to_status(self._folder, self._record, memory=self._memory)

    async def _wait_for_change(self, known: dict[str, Any], timeout_s: float) -> None:
        """Until the state, or a finished step, is news."""
        deadline = time.monotonic() + timeout_s
        while self._status().essence() == known and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), min(left, self._spec.poll_s))

    def _restart(self) -> None:
        self._must_be_held("restarted")
        if self._record.start >= self._spec.most_starts:
            raise InputError(
                f"job {self._spec.id} was started {self._record.start} times: release it"
            )
        spec = effective_spec(self._folder)
        self._publish(pid=None, pid_started="")  # how a frozen child ends is of no interest
        if left := processes.kill(self._job, self._children.reap):
            raise InputError(f"processes {left} can't be killed: release the job")
        self._spec = spec
        self._start_child(spec)

    def _continue(self) -> None:
        self._must_be_held("continued")
        if not self._record.frozen:
            raise InputError(f"job {self._spec.id} has no frozen process: restart it")
        self._held_until = float("inf")
        self._progress.begin()
        self._publish(state=State.RUNNING, cause="", fault=None, frozen=False)
        processes.send(self._job(), signal.SIGCONT)

    async def _end(self, *, released: bool) -> None:
        was = self._record
        self._ending = True
        if not was.frozen:
            processes.send(self._job(), signal.SIGTERM)
            deadline = time.monotonic() + self._spec.grace_s
            while self._job() and time.monotonic() < deadline:
                await asyncio.sleep(POLL_OF_THE_END_S)
        if released and was.state is State.HELD:
            self._finish(State.FAILED, was.cause)
        else:
            self._finish(State.CANCELLED, "released" if released else "cancelled")

    async def _run_beside(self, request: Request, reader: Reader, writer: Writer) -> None:
        if self._ending:
            raise InputError(f"job {self._spec.id} is ending")
        env = self._spec.environment(self._folder, self._record.nonce)  # that of the last start
        argv = request["argv"] or [shell()]
        await self._shells.run(
            {**request, "argv": argv}, reader, writer, folder=self._folder.work, env=env
        )

    def _must_be_held(self, done: str) -> None:
        if self._record.state is not State.HELD:
            raise InputError(
                f"job {self._spec.id} is {self._record.state}: only a held job can be {done}"
            )

    def _publish(self, **changes: Any) -> None:
        """Change the state and write it; a disk that is full now is tried again later."""
        before = self._record
        self._record = replace(before, **changes)
        if self._record.state is not before.state or self._record.start != before.start:
            self._record = replace(self._record, since_s=time.time())
        self._news.set()  # wakes all who wait now
        self._news.clear()
        try:
            write_state(self._folder, self._record)
            self._unwritten = False
        except OSError as error:
            if not self._unwritten:
                with contextlib.suppress(OSError):  # keeper.log is on the same disk
                    print(f"{self._folder.state}: {error.strerror}", file=sys.stderr, flush=True)
            self._unwritten = True


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
