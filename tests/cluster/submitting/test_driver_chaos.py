"""Whatever happens, in whatever order, the books are right."""

import tempfile
from pathlib import Path

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ort_optim.cluster.states import OCCUPYING, OVER, State
from ort_optim.cluster.submitting.backend import Gone, OrderKind
from tests.cluster.submitting.driven import Batch, command


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
