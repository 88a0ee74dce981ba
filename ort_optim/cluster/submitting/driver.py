"""The driver: reads the journal, plans, starts what is to start now, and keeps the books.

    Driver.run          until all is over, or the caller wants it to stop
    Driver.turn         one turn: beat, requests, news, plan, start
    Limits              what is bounded, and by how much

Each step is in the journal before it is taken: a job is RUNNING with its attempt and its slot
before anything is started. A driver that dies loses nothing: the next one finds the keepers of what
is RUNNING or HELD in its folders, and starts an attempt that nobody started. A job goes back into
the queue for three reasons only: its server was lost, there was no room for it (nothing ran), or
the submitter was stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from ort_optim.cluster.keeping.status import Status
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.servers import Cluster
from ort_optim.cluster.states import OCCUPYING, OVER, Answer, Record, State
from ort_optim.cluster.submitting.backend import Backend, Gone, News, Order, OrderKind
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.cluster.submitting.requests import carry_out
from ort_optim.cluster.submitting.turns import Planner, Turn, held_share

BEAT_EVERY_S = 1.0
LOOK_AT_SERVERS_EVERY_S = 1.0
NO_ROOM_PAUSE_S = 5.0
PLAN_WITHIN_TURN_S = 0.1  # so long a turn waits for a plan
PAUSE_PER_PLANNING = 2.0  # at most a third of the time is spent planning
STOP_WITHIN_S = 30.0  # more than a keeper gives a job to end by itself
STOPPED = "stopped with the submitter"  # the cause of jobs that go on at the next `submit`


@dataclass(frozen=True)
class Limits:
    """What is bounded.

    Attributes:
        held_share: When jobs wait and held ones have more than this share of the cluster's CPUs or
            GPUs, the oldest held are released until they do not, all but the newest.
        hold: False: what fails is released at once.
        attempts: A job that was lost with its server so often is not tried again.
        patience_s: How long to wait for servers when nothing runs and none can take what waits.
    """

    held_share: float = 0.5
    hold: bool = True
    attempts: int = 5
    patience_s: float = 60.0


class Driver:
    """Runs the jobs of a journal, whose lease the caller has taken, on a backend.

    Args:
        journal: With the lease of this process.
        backend: Runs the jobs; the caller closes it.
        planner: Decides what starts where.
        limits: What is bounded.
        observer: Called after each turn in which something changed.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        journal: Journal,
        backend: Backend,
        planner: Planner,
        *,
        limits: Limits = Limits(),
        observer: Callable[[Driver], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.journal = journal
        self.backend = backend
        self.limits = limits
        self.records: dict[str, Record] = {}
        self._planner = planner
        self._observer = observer
        self._clock = clock
        self._cluster = Cluster(())
        self._dirty = True  # something has changed, so plan again
        self._paused: dict[str, float] = {}  # job -> not to be started before
        self._cancelled: set[str] = set()  # their owners wanted that
        self._asked: dict[int, str] = {}  # requests handed to keepers: number -> job
        self._releasing: set[str] = set()
        self._beaten_s = self._looked_s = -math.inf
        self._stuck_since_s = math.inf
        self._stopping = False
        self._planners = ThreadPoolExecutor(1)
        self._planning: Future[Turn] | None = None
        self._plan_begun_s = self._plan_after_s = -math.inf

    def run(self, wanted: Callable[[], bool] = lambda: True, turn_s: float = 0.1) -> bool:
        """Until all jobs are over; True then.

        False: `wanted` has become false, or what waits fits no server that is left.
        """
        self.recover()
        try:
            while any(record.state not in OVER for record in self.records.values()):
                if self._clock() - self._stuck_since_s > self.limits.patience_s:
                    return False
                if not wanted():
                    if not self.backend.outlives:
                        self._stop_running(turn_s)
                    return False
                self.turn(turn_s)
        finally:
            self._planners.shutdown(wait=False, cancel_futures=True)
        self._observer(self)
        return True

    def recover(self) -> None:
        """Take up what the journal says an earlier driver left."""
        self._look_at_servers()
        self.records = {record.id: record for record in self.journal.records()}
        for record in list(self.records.values()):
            if record.state is State.LOST:
                self._requeue(record)
            elif record.state in OCCUPYING:
                self.backend.attach(record.job, record.placements, record.attempt)
        self._observer(self)

    def turn(self, timeout_s: float) -> None:
        """One turn; it lasts as long as `timeout_s` when there is no news."""
        now_s = self._clock()
        if now_s - self._beaten_s >= BEAT_EVERY_S:
            self.journal.beat(self.backend.address)
            self._beaten_s = now_s
        if now_s - self._looked_s >= LOOK_AT_SERVERS_EVERY_S:
            self._look_at_servers()
        for request in self.journal.requests():
            if request.number not in self._asked:
                carry_out(self, request)
        changed = False
        for news in self.backend.poll(timeout_s):
            changed = self._take(news) or changed
        if any(until_s <= now_s for until_s in self._paused.values()):
            self._paused = {job: at_s for job, at_s in self._paused.items() if at_s > now_s}
            self._dirty = True
        changed = self._plan_and_start() or changed
        self._cap_held()
        if changed:
            self._observer(self)

    # What requests.py and the command line use

    def move(
        self,
        job: str,
        after: State,
        cause: str = "",
        *,
        placements: tuple[Placement, ...] | None = None,
        attempt: int | None = None,
    ) -> None:
        """A job changes its state, in the journal first; whatever it frees is planned anew."""
        self.journal.move(job, after, cause, placements=placements, attempt=attempt)
        self.records[job] = self.journal.record(job)
        self._dirty = True

    def hand_over(self, order: Order) -> None:
        """Have an order obeyed; the request of its number is answered when it was."""
        if order.kind is OrderKind.CANCEL:
            self._cancelled.add(order.job)
        if order.number:
            self._asked[order.number] = order.job
        self.backend.order(order)

    def archive_of(self, record: Record) -> Path:
        """Where the remains of a released job go."""
        return self.journal.folder / "archives" / f"{record.id}-{record.attempt}.tar.gz"

    # News

    def _take(self, news: News) -> bool:
        record = self.records[news.job]
        stale = news.attempt != record.attempt or record.state not in OCCUPYING
        if not stale and news.gone is not None:
            self._gone(record, news.gone, news.reason)
        elif not stale and news.status is not None:
            self._follow(record, news.status)
        if news.order in self._asked:
            del self._asked[news.order]
            if news.refused:
                self._cancelled.discard(news.job)
            now = self.records[news.job]
            told = news.refused or _told(now)
            self.journal.answer(news.order, Answer(not news.refused, told))
        if news.refused:
            self._releasing.discard(news.job)
        return not stale

    def _follow(self, record: Record, status: Status) -> None:
        """Bring the journal to where the keeper is, also over states that were not seen."""
        facts = (status.start, status.last_step, status.container)
        if facts != (record.starts, record.last_step, record.container):
            self.journal.note(
                record.id,
                starts=status.start,
                last_step=status.last_step,
                container=status.container,
            )
            self.records[record.id] = self.journal.record(record.id)
        again = status.start > record.starts
        goes_on = again or status.state in {State.RUNNING, State.DONE}
        if record.state is State.HELD and goes_on:
            self.move(record.id, State.RUNNING, f"start {status.start}" if again else "continued")
        if status.state is State.HELD:
            if self.records[record.id].state is State.RUNNING:
                self.move(record.id, State.HELD, status.cause)
            if not self.limits.hold and record.id not in self._releasing:
                self._release(record)
        elif status.state is State.LOST:
            self._lose(record, status.cause)
        elif status.state is State.CANCELLED and record.id not in self._cancelled:
            self._lose(record, STOPPED if self._stopping else status.cause)
        elif status.state in OVER:
            self.backend.forget(record.id)
            kept = record.cause if record.state is State.HELD else ""
            self.move(record.id, status.state, status.cause or kept)

    def _gone(self, record: Record, gone: Gone, reason: str) -> None:
        if gone is Gone.NEVER and record.state is State.RUNNING:
            self.backend.start(record.job, record.placements, record.attempt)
            return
        if gone is Gone.NO_ROOM:
            self.backend.forget(record.id)
            self._paused[record.id] = self._clock() + NO_ROOM_PAUSE_S
            self.move(record.id, State.QUEUED, reason)
        elif gone is Gone.REFUSED:
            self.backend.forget(record.id)
            self.move(record.id, State.FAILED, reason)
        else:
            self._lose(record, reason)

    def _lose(self, record: Record, reason: str) -> None:
        self.backend.forget(record.id)
        self.move(record.id, State.LOST, reason)
        self._look_at_servers()
        self._requeue(self.records[record.id])

    def _requeue(self, record: Record) -> None:
        """What becomes of a lost job: as a rule, the next attempt."""
        cancelled = record.id in self._cancelled
        if cancelled:
            self.move(record.id, State.CANCELLED, record.cause)
        elif record.attempt >= self.limits.attempts and not self._stopping:
            cause = f"lost {record.attempt} times, the last time: {record.cause}"
            self.move(record.id, State.FAILED, cause)
        else:
            self.move(record.id, State.QUEUED, record.cause)
        for number in [number for number, job in self._asked.items() if job == record.id]:
            del self._asked[number]
            told = f"{record.id} was lost: {record.cause}"
            self.journal.answer(number, Answer(cancelled, told))
        self._releasing.discard(record.id)

    # Held jobs

    def _cap_held(self) -> None:
        held = self._in(State.HELD)
        if len(held) < 2 or not self._in(State.QUEUED):
            return
        held.sort(key=lambda record: record.since_s)
        staying = [record for record in held if record.id not in self._releasing]
        while len(staying) > 1 and held_share(staying, self._cluster) > self.limits.held_share:
            self._release(staying.pop(0))

    def _release(self, record: Record) -> None:
        self._releasing.add(record.id)
        archive = self.archive_of(record)
        self.hand_over(Order(0, record.id, OrderKind.RELEASE, archive=archive))

    def _stop_running(self, turn_s: float) -> None:
        """End what runs, to go on with it at the next `submit`; what is held stays held."""
        self._stopping = True
        for record in self._in(State.RUNNING):
            self.backend.order(Order(0, record.id, OrderKind.CANCEL))
        until_s = self._clock() + STOP_WITHIN_S
        while self._in(State.RUNNING) and self._clock() < until_s:
            for news in self.backend.poll(turn_s):
                self._take(news)
        self._observer(self)

    # Plans

    def _look_at_servers(self) -> None:
        self._looked_s = self._clock()
        found = self.backend.cluster()
        if found != self._cluster:
            self._cluster = found
            self._dirty = True

    def _plan_and_start(self) -> bool:
        """Begin a plan when something has changed, start what a finished one says.

        Planning goes on beside the turns, so that owners are answered meanwhile. What it finds is
        still right when it ends: only this driver starts jobs, so in between there is only more
        room, and what waits no more is left out.
        """
        if self._planning is None:
            if not self._dirty or self._clock() < self._plan_after_s:
                return False
            self._dirty = False
            self._plan_begun_s = self._clock()
            self._planning = self._planners.submit(
                self._planner.decide, dict(self.records), self._cluster, self._plan_begun_s
            )
        wait([self._planning], PLAN_WITHIN_TURN_S)
        if not self._planning.done():
            return False
        turn, self._planning = self._planning.result(), None
        took_s = self._clock() - self._plan_begun_s
        self._plan_after_s = self._clock() + PAUSE_PER_PLANNING * took_s
        self._start(turn)
        return True

    def _start(self, turn: Turn) -> None:
        dirty = self._dirty
        for job, reason in turn.hopeless.items():
            if self.records[job].state is State.QUEUED:
                self.move(job, State.FAILED, reason)
        notes = {
            job: note
            for job, note in turn.notes.items()
            if self.records[job].note != note and self.records[job].state is State.QUEUED
        }
        self.journal.tell_why_waiting(notes)
        for job, note in notes.items():
            self.records[job] = replace(self.records[job], note=note)
        for job, placements in turn.starts.items():
            record = self.records[job]
            if job in self._paused or record.state is not State.QUEUED:
                continue
            attempt = record.attempt + 1
            self.move(job, State.RUNNING, placements=placements, attempt=attempt)
            self.backend.start(record.job, placements, attempt)
        # What was started changes nothing for the rest, unless the planner saw only a part of them.
        self._dirty = dirty or bool(turn.hopeless) or (turn.partial and bool(turn.starts))
        waits = bool(self._in(State.QUEUED)) and not self._paused
        if not waits or any(self._in(state) for state in OCCUPYING):
            self._stuck_since_s = math.inf
        elif self._stuck_since_s == math.inf:
            self._stuck_since_s = self._clock()

    def _in(self, state: State) -> list[Record]:
        return [record for record in self.records.values() if record.state is state]


def _told(record: Record) -> str:
    return f"{record.id} is {record.state}" + (f": {record.cause}" if record.cause else "")
