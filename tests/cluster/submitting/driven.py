"""A batch whose driver is turned by hand, on a backend without processes."""

from pathlib import Path

from ort_optim.cluster.jobs import Job, Resources
from ort_optim.cluster.states import State
from ort_optim.cluster.submitting.driver import Driver, Limits
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.cluster.submitting.turns import Planner
from tests.cluster.fake_backend import FakeBackend, first_fit


def command(name: str, cpus: int = 1, **others) -> Job:
    return Job(name, command=("true",), resources=Resources(milli_cpus=cpus * 1000), **others)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Batch:
    """A journal, a backend and a driver, which can die and be made again."""

    def __init__(self, folder: Path, *servers: str, limits: Limits | None = None) -> None:
        self.clock = Clock()
        self.journal = Journal.open(folder, create=True, clock=self.clock)
        self.backend = FakeBackend(*(servers or ("a",)))
        self.limits = limits or Limits()

    def submit(self, *jobs: Job, again: bool = False) -> None:
        owners = {job.id: "ann" for job in jobs}
        self.journal.submit(jobs, owners, {"ann": "d"}, again=again)

    def begin(self) -> Driver:
        assert self.journal.take_lease() is None
        self.driver = Driver(
            self.journal, self.backend, Planner(first_fit), limits=self.limits, clock=self.clock
        )
        self.driver.recover()
        self.turn()
        return self.driver

    def turn(self, count: int = 3) -> None:
        for _ in range(count):
            self.clock.now_s += 1.0
            self.driver.turn(0.0)

    def crash(self) -> None:
        """SIGKILL: the books are as they are, the keepers go on."""
        self.journal.drop_lease()
        self.backend = FakeBackend(
            *(server.name for server in self.backend.servers.servers), keepers=self.backend.keepers
        )

    def state(self, job: str) -> State:
        return self.journal.record(job).state

    def path(self, job: str) -> list[State]:
        return [event.after for event in self.journal.events(job)]
