"""The driver's books: what happens to jobs is what the journal says, also over crashes."""

import itertools
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ort_optim.cluster.jobs import Job, Resources
from ort_optim.cluster.keeping.status import Patch
from ort_optim.cluster.states import OCCUPYING, OVER, Answer, State
from ort_optim.cluster.submitting import driver as driver_module
from ort_optim.cluster.submitting import turns
from ort_optim.cluster.submitting.backend import Gone, OrderKind
from ort_optim.cluster.submitting.driver import Driver, Limits
from ort_optim.cluster.submitting.journal import Journal, LeaseLostError
from ort_optim.cluster.submitting.turns import Planner
from tests.cluster.fake_backend import FakeBackend, cluster, first_fit


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


@pytest.fixture(autouse=True)
def _plans_are_waited_for(monkeypatch):
    monkeypatch.setattr(driver_module, "PLAN_WITHIN_TURN_S", 30.0)


@pytest.fixture
def batch(tmp_path):
    made = Batch(tmp_path / "s")
    yield made
    made.journal.close()


def test_jobs_run_as_many_as_fit_and_all_get_done(batch):
    batch.submit(*(command(name) for name in "vwxyz"))
    batch.begin()
    for _ in range(5):
        running = batch.journal.records(State.RUNNING)
        assert len(running) <= 2
        for record in running:
            batch.backend.tell(record.id, State.DONE)
        batch.turn()
    assert {record.state for record in batch.journal.records()} == {State.DONE}
    assert all(batch.path(name) == [State.RUNNING, State.DONE] for name in "vwxyz")


def test_run_returns_when_all_is_over(batch):
    batch.submit(command("x"))
    batch.journal.take_lease()
    turns = itertools.count()

    def observe(driver):
        if next(turns) == 2:
            batch.backend.tell("x", State.DONE)

    driver = Driver(
        batch.journal, batch.backend, Planner(first_fit), clock=batch.clock, observer=observe
    )
    assert driver.run(turn_s=0.0)
    assert batch.state("x") is State.DONE


def test_a_job_that_comes_after_others_waits_for_them(batch):
    batch.submit(command("x"), command("y", after=("x",)))
    batch.begin()
    assert batch.state("y") is State.QUEUED
    batch.backend.tell("x", State.DONE)
    batch.turn()
    assert batch.state("y") is State.RUNNING


def test_what_comes_after_a_failed_job_fails_with_the_reason(batch):
    batch.submit(command("x"), command("y", after=("x",)), command("z", after=("y",)))
    batch.begin()
    batch.backend.tell("x", State.HELD, "exit 1")
    batch.turn()
    assert batch.state("y") is State.QUEUED  # x may still be repaired
    batch.backend.tell("x", State.FAILED, "released")
    batch.turn()
    assert batch.state("y") is State.FAILED
    assert batch.state("z") is State.FAILED
    assert batch.journal.record("y").cause == "comes after x, which is FAILED"


def test_a_held_job_keeps_its_slot_and_others_go_on(batch):
    batch.submit(command("bad"), *(command(name) for name in "xy"))
    batch.begin()
    slot = batch.journal.record("bad").placements
    batch.backend.tell("bad", State.HELD, "exit 1")
    batch.turn()
    for name in "xy":
        batch.backend.tell(name, State.DONE)
        batch.turn()
    assert batch.state("x") is batch.state("y") is State.DONE
    record = batch.journal.record("bad")
    assert (record.state, record.cause, record.placements) == (State.HELD, "exit 1", slot)
    number = batch.journal.ask("bad", "restart", {"patch": Patch(env={"A": "b"}).to_dict()})
    batch.turn(1)
    assert batch.journal.answer_of(number) == Answer(True, "bad is RUNNING: start 2")
    assert batch.backend.orders[-1].patch.env == {"A": "b"}
    record = batch.journal.record("bad")
    assert (record.state, record.starts, record.attempt) == (State.RUNNING, 2, 1)
    assert record.placements == slot
    assert batch.path("bad") == [State.RUNNING, State.HELD, State.RUNNING]


def test_a_restart_that_fails_before_anyone_looks_is_in_the_books(batch):
    batch.submit(command("x"))
    batch.begin()
    batch.backend.tell("x", State.HELD, "exit 1")
    batch.turn()
    batch.backend.tell("x", State.HELD, "exit 2", start=2)
    batch.turn()
    assert batch.path("x") == [State.RUNNING, State.HELD, State.RUNNING, State.HELD]
    assert batch.journal.record("x").cause == "exit 2"


def test_a_restart_that_succeeds_before_anyone_looks_is_in_the_books(batch):
    batch.submit(command("x"), command("y"))
    batch.begin()
    for name, start in (("x", 2), ("y", 1)):  # y was frozen, and went on
        batch.backend.tell(name, State.HELD, "no progress")
        batch.turn()
        batch.backend.tell(name, State.DONE, start=start)
        batch.turn()
        assert batch.path(name) == [State.RUNNING, State.HELD, State.RUNNING, State.DONE]


def test_an_order_that_the_keeper_refuses_is_answered_with_its_reason(batch):
    batch.submit(command("x"))
    batch.begin()
    batch.backend.tell("x", State.HELD, "exit 1")
    batch.turn()
    batch.backend.refuse["x"] = "started too often"
    number = batch.journal.ask("x", "restart", {})
    batch.turn(1)
    assert batch.journal.answer_of(number) == Answer(False, "started too often")
    assert batch.state("x") is State.HELD


@pytest.mark.parametrize("kind", ["restart", "release", "continue"])
def test_only_held_jobs_are_restarted_or_released(batch, kind):
    batch.submit(command("x"), command("y", cpus=2))
    batch.begin()
    for job, word in (("x", "RUNNING"), ("y", "waits")):
        number = batch.journal.ask(job, kind, {})
        batch.turn(1)
        answer = batch.journal.answer_of(number)
        assert not answer.ok
        assert word in answer.text
    assert batch.backend.orders == []


def test_release_gives_the_slot_to_others_and_keeps_an_archive(batch):
    batch.submit(command("bad", cpus=2), command("x"))
    batch.begin()
    batch.backend.tell("bad", State.HELD, "exit 1")
    batch.turn()
    assert batch.state("x") is State.QUEUED
    number = batch.journal.ask("bad", "release", {})
    batch.turn()
    assert batch.journal.answer_of(number).ok
    assert batch.backend.orders[-1].archive == batch.journal.folder / "archives" / "bad-1.tar.gz"
    record = batch.journal.record("bad")
    assert (record.state, record.cause) == (State.FAILED, "exit 1")
    assert batch.state("x") is State.RUNNING


def test_cancel_ends_jobs_in_every_state(batch):
    batch.submit(command("running"), command("held"), command("queued"))
    batch.begin()
    batch.backend.tell("held", State.HELD, "exit 1")
    batch.turn()
    for name in ("queued", "running", "held"):
        number = batch.journal.ask(name, "cancel", {})
        batch.turn()
        assert batch.journal.answer_of(number).ok
        assert batch.state(name) is State.CANCELLED
    assert not batch.journal.requests()


def test_a_lost_server_means_another_attempt_elsewhere(tmp_path):
    batch = Batch(tmp_path / "s", "a", "b")
    batch.submit(command("x", cpus=2))
    batch.begin()
    batch.backend.servers = cluster("b")
    batch.backend.gone("x", Gone.SERVER, "server a died")
    batch.turn()
    assert batch.path("x") == [State.RUNNING, State.LOST, State.QUEUED, State.RUNNING]
    assert batch.backend.started == [("x", 1, "a"), ("x", 2, "b")]


def test_a_held_job_whose_server_dies_is_lost_too_and_its_owner_told(batch):
    batch.submit(command("x"))
    batch.begin()
    batch.backend.tell("x", State.HELD, "exit 1")
    batch.turn()
    batch.backend.order = lambda order: None  # it never answers
    number = batch.journal.ask("x", "restart", {})
    batch.turn()
    batch.backend.gone("x", Gone.SERVER, "server a died")
    batch.turn(1)
    assert batch.journal.answer_of(number) == Answer(False, "x was lost: server a died")
    assert batch.path("x")[:4] == [State.RUNNING, State.HELD, State.LOST, State.QUEUED]


def test_a_job_that_loses_its_server_again_and_again_is_given_up(tmp_path):
    batch = Batch(tmp_path / "s", limits=Limits(attempts=3))
    batch.submit(command("x"))
    batch.begin()
    for _ in range(3):
        assert batch.state("x") is State.RUNNING
        batch.backend.gone("x", Gone.SERVER, "server a died")
        batch.turn()
    assert batch.state("x") is State.FAILED
    assert "lost 3 times" in batch.journal.record("x").cause


def test_no_room_means_back_to_the_queue_and_a_later_try(batch):
    batch.submit(command("x"))
    batch.backend.no_room.add("x")
    batch.begin()
    assert batch.state("x") is State.QUEUED
    batch.backend.no_room.clear()
    batch.turn(10)
    assert batch.state("x") is State.RUNNING


def test_jobs_that_can_not_be_started_at_all_fail(batch):
    batch.submit(command("x"))
    batch.begin()
    batch.backend.gone("x", Gone.REFUSED, "no tool for containers works here")
    batch.turn()
    record = batch.journal.record("x")
    assert (record.state, record.cause) == (State.FAILED, "no tool for containers works here")


def test_without_hold_what_fails_is_released_at_once(tmp_path):
    batch = Batch(tmp_path / "s", limits=Limits(hold=False))
    batch.submit(command("x"))
    batch.begin()
    batch.backend.tell("x", State.HELD, "exit 1")
    batch.turn()
    assert batch.path("x") == [State.RUNNING, State.HELD, State.FAILED]
    assert [order.kind for order in batch.backend.orders] == [OrderKind.RELEASE]


def test_the_oldest_held_give_way_when_others_wait_for_their_share(tmp_path):
    batch = Batch(tmp_path / "s", "a", "b", limits=Limits(held_share=0.5))
    batch.submit(*(command(name) for name in ("h1", "h2", "h3", "h4")))
    batch.begin()
    for name in ("h1", "h2", "h3", "h4"):
        batch.backend.tell(name, State.HELD, "exit 1")
        batch.turn()
    assert len(batch.journal.records(State.HELD)) == 4  # nobody waits
    batch.crash()
    batch.submit(command("x"))
    batch.begin()
    assert [batch.state(name) for name in ("h1", "h2", "h3", "h4", "x")] == [
        State.FAILED,
        State.FAILED,
        State.HELD,
        State.HELD,
        State.RUNNING,
    ]


def test_the_only_held_job_is_never_released_by_the_cap(batch):
    batch.submit(command("bad", cpus=2), command("x"))
    batch.begin()
    batch.backend.tell("bad", State.HELD, "exit 1")
    batch.turn(10)
    assert batch.state("bad") is State.HELD
    assert batch.state("x") is State.QUEUED


def test_a_new_driver_finds_what_runs_and_starts_what_nobody_started(batch):
    batch.submit(command("runs"), command("intended"), command("waits"))
    batch.begin()
    batch.turn()
    del batch.backend.keepers["intended"]  # the driver died between the books and the start
    batch.crash()
    batch.begin()
    assert batch.backend.started == [("intended", 1, "a")]
    for name in ("runs", "intended"):
        assert batch.path(name) == [State.RUNNING]
        assert batch.journal.record(name).attempt == 1


def test_what_happened_while_no_driver_ran_is_taken_over(batch):
    batch.submit(command("done"), command("held"))
    batch.begin()
    batch.crash()
    batch.backend.tell("done", State.DONE)
    batch.backend.tell("held", State.HELD, "exit 1")
    batch.backend.poll(0.0)
    batch.begin()
    assert batch.state("done") is State.DONE
    assert batch.state("held") is State.HELD
    assert batch.backend.started == []


def test_a_cancel_that_a_crash_interrupted_is_still_carried_out(batch):
    batch.submit(command("x"))
    batch.begin()
    batch.crash()
    number = batch.journal.ask("x", "cancel", {})
    batch.begin()
    assert batch.state("x") is State.CANCELLED
    assert batch.journal.answer_of(number).ok


def test_a_driver_that_is_stopped_stops_what_runs_and_the_next_goes_on(batch):
    batch.submit(command("x"), command("held"))
    batch.begin()
    batch.backend.tell("held", State.HELD, "exit 1")
    batch.turn()
    assert not batch.driver.run(wanted=lambda: False, turn_s=0.0)
    assert batch.state("x") is State.QUEUED
    assert batch.state("held") is State.HELD
    batch.crash()
    batch.begin()
    assert batch.backend.started == [("x", 2, "a")]


def test_a_driver_whose_jobs_outlive_it_leaves_them_alone(batch):
    batch.submit(command("x"))
    batch.backend.outlives = True
    batch.begin()
    assert not batch.driver.run(wanted=lambda: False, turn_s=0.0)
    assert batch.state("x") is State.RUNNING
    assert batch.backend.orders == []


def test_a_driver_that_lost_its_lease_stops_before_it_starts_anything(batch):
    batch.submit(command("x", cpus=2), command("y"))
    batch.begin()
    batch.journal._connection.execute("UPDATE lease SET nonce = 'of another'")
    batch.backend.tell("x", State.DONE)
    with pytest.raises(LeaseLostError):
        batch.turn()
    assert batch.backend.started == [("x", 1, "a")]


def test_with_no_server_for_what_waits_the_driver_gives_up_after_its_patience(batch):
    batch.submit(command("x", cpus=2))
    batch.backend.servers = cluster("a", cpus=1)
    batch.journal.take_lease()
    driver = Driver(batch.journal, batch.backend, Planner(first_fit), clock=batch.clock)

    def wanted():
        batch.clock.now_s += 1.0
        return True

    assert not driver.run(wanted, turn_s=0.0)
    assert batch.clock.now_s > 1000.0 + Limits().patience_s
    assert batch.journal.record("x").note == "more CPUs than any server has"


def test_news_of_an_earlier_attempt_changes_nothing(batch):
    batch.submit(command("x"))
    batch.begin()
    batch.backend.gone("x", Gone.SERVER, "server a died")
    batch.turn()
    batch.backend.tell("x", State.DONE, attempt=1)
    batch.turn()
    assert batch.state("x") is State.RUNNING
    assert batch.journal.record("x").attempt == 2


def test_of_a_long_queue_the_planner_sees_the_first_and_all_get_done(batch, monkeypatch):
    monkeypatch.setattr(turns, "WINDOW", 3)
    seen = []

    def ask(jobs, *arguments, **others):
        seen.append([job.id for job in jobs])
        return first_fit(jobs, *arguments, **others)

    late = command("late", priority=9)
    batch.submit(*(command(f"j{index}") for index in range(8)), late)
    batch.journal.take_lease()
    batch.driver = Driver(batch.journal, batch.backend, Planner(ask), clock=batch.clock)
    batch.driver.recover()
    for _ in range(10):
        batch.turn()
        for record in batch.journal.records(State.RUNNING):
            batch.backend.tell(record.id, State.DONE)
    assert {record.state for record in batch.journal.records()} == {State.DONE}
    assert max(map(len, seen)) == 3
    assert "late" in seen[0]


def test_owners_are_answered_while_a_long_plan_is_made(batch, monkeypatch):
    monkeypatch.setattr(driver_module, "PLAN_WITHIN_TURN_S", 0.0)
    planned = threading.Event()

    def ask(*arguments, **others):
        assert planned.wait(30)
        return first_fit(*arguments, **others)

    batch.submit(command("x"), command("y"))
    batch.journal.take_lease()
    batch.driver = Driver(batch.journal, batch.backend, Planner(ask), clock=batch.clock)
    batch.driver.recover()
    batch.turn(1)
    number = batch.journal.ask("x", "cancel", {})
    batch.turn()
    assert batch.journal.answer_of(number).ok
    planned.set()
    while batch.state("y") is State.QUEUED:
        batch.turn(1)
    assert batch.state("x") is State.CANCELLED  # though the plan was to start it
    assert batch.backend.started == [("y", 1, "a")]


class Chaos(RuleBasedStateMachine):
    """Whatever happens, in whatever order: one attempt at a time, within capacity, nothing lost."""

    NAMES = tuple(f"j{index}" for index in range(6))

    @initialize()
    def begin(self):
        self._folder = tempfile.TemporaryDirectory()
        self.batch = Batch(Path(self._folder.name) / "s", "a", "b")
        self.batch.submit(*(command(name) for name in self.NAMES))
        self.batch.begin()

    def teardown(self):
        if hasattr(self, "batch"):
            for _ in range(200):
                for record in self.batch.journal.records(*OCCUPYING):
                    if record.id in self.batch.backend.keepers:
                        self.batch.backend.tell(record.id, State.DONE)
                self.batch.turn(8)
                if all(record.state in OVER for record in self.batch.journal.records()):
                    break
            else:
                raise AssertionError("jobs were left behind")
            self.batch.journal.close()
            self._folder.cleanup()

    @rule(name=st.sampled_from(NAMES), state=st.sampled_from([State.HELD, State.DONE, State.LOST]))
    def keeper_says(self, name, state):
        keeper = self.batch.backend.keepers.get(name)
        if keeper is not None and keeper.state is State.RUNNING:
            self.batch.backend.tell(name, state, "a cause")

    @rule(name=st.sampled_from(NAMES), kind=st.sampled_from(OrderKind))
    def owner_asks(self, name, kind):
        self.batch.journal.ask(name, kind, {})

    @rule(name=st.sampled_from(NAMES))
    def server_dies(self, name):
        if name in self.batch.backend.keepers:
            self.batch.backend.gone(name, Gone.SERVER, "server died")

    @rule()
    def driver_is_killed(self):
        self.batch.crash()
        self.batch.begin()

    @rule(count=st.integers(1, 3))
    def time_passes(self, count):
        self.batch.turn(count)

    @invariant()
    def nothing_is_over_capacity(self):
        if not hasattr(self, "batch"):
            return
        used = {"a": 0, "b": 0}
        for record in self.batch.journal.records(*OCCUPYING):
            for placement in record.placements:
                used[placement.server] += placement.milli_cpus
        assert max(used.values()) <= 2000

    @invariant()
    def attempts_are_counted_once(self):
        if not hasattr(self, "batch"):
            return
        for name in self.NAMES:
            events = self.batch.journal.events(name)
            begun = [
                event.attempt
                for event in events
                if event.before is State.QUEUED and event.after is State.RUNNING
            ]
            assert begun == list(range(1, len(begun) + 1))


TestChaos = Chaos.TestCase
TestChaos.settings = settings(
    max_examples=8,
    stateful_step_count=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
