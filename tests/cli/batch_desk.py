"""A folder with a job file, and the terminals of its owner; real keepers, no Ray."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ort_optim.cli import main
from ort_optim.cluster.ray.actor_backend import ActorBackend
from ort_optim.cluster.states import State
from ort_optim.cluster.submitting.journal import Journal
from tests.cluster.thread_door import ThreadDoor

WAIT_S = 30.0


class Desk:
    """A folder with a job file, and the terminals of its owner."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.file = folder / "jobs.yaml"
        self.doors: list[ThreadDoor] = []
        self.address = "local"
        self._meanwhile: list[threading.Thread] = []
        self._failed: list[BaseException] = []

    def connect(self, address, state, wanted=None, *, transfer=False):
        door = ThreadDoor("n1", "n2", address=self.address)
        self.doors.append(door)
        return ActorBackend(door, state, wanted, transfer=transfer)

    def jobs(self, *lines: str) -> None:
        text = "version: 1\njobs:\n" + "".join(f"  - {{{line}}}\n" for line in lines)
        self.file.write_text(text)

    def batch(self, *words: str) -> int:
        return main(["batch", words[0], "--state", str(self.state), *words[1:]])

    def submit(self, *words: str) -> int:
        self._running = True
        code = self.batch("submit", str(self.file), *words)
        self._running = False
        for thread in self._meanwhile:
            thread.join(WAIT_S)
        self._meanwhile.clear()
        if self._failed:
            raise self._failed.pop()
        return code

    def meanwhile(self, act: Callable[[], object]) -> None:
        """Do this while `submit` runs, which a failure ends."""

        def run() -> None:
            try:
                act()
            except BaseException as error:
                self._failed.append(error)
                if self._running:
                    os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=run)
        self._meanwhile.append(thread)
        thread.start()

    def until_state(self, job: str, state: State) -> None:
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:
            if (self.state / "journal.sqlite").exists():
                with Journal.open(self.state, create=True) as journal:
                    found = {record.id: record.state for record in journal.records()}
                if found.get(job) is state:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{job} did not become {state}")

    def record(self, job: str):
        with Journal.open(self.state) as journal:
            return journal.record(job)

    def path(self, job: str) -> list[State]:
        with Journal.open(self.state) as journal:
            return [event.after for event in journal.events(job)]
