"""A backend without processes: tests say what becomes of each job."""

from __future__ import annotations

from collections.abc import Sequence

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.keeping.status import Status
from ort_optim.cluster.plan import Placement, Plan, Planned, Refused
from ort_optim.cluster.servers import Cluster, Server
from ort_optim.cluster.states import State
from ort_optim.cluster.submitting.backend import Gone, News, Order, OrderKind


def cluster(*names: str, cpus: int = 2) -> Cluster:
    return Cluster(tuple(Server(name, "two", cpus * 1000, 1 << 30) for name in names))


def first_fit(
    jobs: Sequence[Job],
    cluster: Cluster,
    *,
    running: Sequence[Planned] = (),
    now_s: float = 0.0,
    **_: object,
) -> Plan:
    """CPUs only: what fits now starts now, the rest later."""
    free = {server.name: server.milli_cpus for server in cluster.servers}
    for planned in running:
        for placement in planned.placements:
            free[placement.server] -= placement.milli_cpus
    planned, refused = [], []
    for job in jobs:
        need = job.resources.milli_cpus
        if all(server.milli_cpus < need for server in cluster.servers):
            refused.append(Refused(job.id, "more CPUs than any server has"))
            continue
        name = next((name for name, left in free.items() if left >= need), None)
        start_s = now_s
        if name is None or job.after:
            name, start_s = cluster.servers[0].name, now_s + 1.0
        else:
            free[name] -= need
        slot = (Placement(name, need, 0),)
        planned.append(Planned(job.id, start_s, start_s + job.duration_s, slot, "first fit"))
    return Plan(planned=tuple(planned), refused=tuple(refused))


class FakeBackend:
    """Jobs start when they are told to, and then are as `tell` says.

    The keepers outlive the object: `FakeBackend(keepers=old.keepers)` is what a new driver finds.
    """

    address = "local"

    def __init__(self, *servers: str, keepers: dict[str, Status] | None = None) -> None:
        self.servers = cluster(*servers)
        self.keepers: dict[str, Status] = keepers if keepers is not None else {}
        self.outlives = False
        self.started: list[tuple[str, int, str]] = []
        self.orders: list[Order] = []
        self.forgotten: list[str] = []
        self.refuse: dict[str, str] = {}  # orders to a job -> why not
        self.no_room: set[str] = set()
        self._news: list[News] = []

    def cluster(self) -> Cluster:
        return self.servers

    def start(self, job: Job, placements: tuple[Placement, ...], attempt: int) -> None:
        if job.id in self.no_room:
            self._news.append(News(job.id, attempt, gone=Gone.NO_ROOM, reason="taken by others"))
            return
        running = self.keepers.get(job.id)
        assert running is None or running.state is not State.RUNNING, f"{job.id} would run twice"
        self.started.append((job.id, attempt, placements[0].server))
        self.tell(job.id, State.RUNNING, attempt=attempt, start=1)

    def attach(self, job: Job, placements: tuple[Placement, ...], attempt: int) -> None:
        status = self.keepers.get(job.id)
        if status is None or status.attempt != attempt:
            self._news.append(News(job.id, attempt, gone=Gone.NEVER, reason="no keeper"))
        else:
            self._news.append(News(job.id, attempt, status))

    def order(self, order: Order) -> None:
        self.orders.append(order)
        old = self.keepers.get(order.job)
        if old is None:
            self._news.append(News(order.job, 0, order=order.number, refused="no keeper"))
            return
        if order.job in self.refuse:
            refused = self.refuse[order.job]
            self._news.append(
                News(order.job, old.attempt, old, order=order.number, refused=refused)
            )
            return
        state, start = old.state, old.start
        if order.kind is OrderKind.RESTART:
            state, start = State.RUNNING, start + 1
        elif order.kind is OrderKind.CONTINUE:
            state = State.RUNNING
        elif order.kind is OrderKind.RELEASE:
            state = State.FAILED
        elif order.kind is OrderKind.CANCEL:
            state = State.CANCELLED
        self.tell(order.job, state, start=start, order=order.number)

    def poll(self, timeout_s: float) -> Sequence[News]:
        news, self._news = self._news, []
        return news

    def forget(self, job: str) -> None:
        self.forgotten.append(job)
        self.keepers.pop(job, None)

    def close(self) -> None:
        self._news.clear()

    # For tests

    def tell(
        self,
        job: str,
        state: State,
        cause: str = "",
        *,
        attempt: int | None = None,
        start: int | None = None,
        last_step: str = "",
        order: int = 0,
    ) -> None:
        """The keeper of a job is in this state now."""
        old = self.keepers.get(job)
        status = Status(
            state=state,
            cause=cause,
            attempt=attempt or (old.attempt if old else 1),
            start=start or (old.start if old else 1),
            pid=1,
            container="",
            last_step=last_step,
            log_tail="",
            since_s=0.0,
        )
        self.keepers[job] = status
        self._news.append(News(job, status.attempt, status, order=order))

    def gone(self, job: str, gone: Gone, reason: str) -> None:
        self._news.append(News(job, self.keepers.pop(job).attempt, gone=gone, reason=reason))
