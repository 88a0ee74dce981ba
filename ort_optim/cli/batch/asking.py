"""Asking the submitter that runs to do something with a job, as the job's owner."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

from ort_optim.cli.batch.state_folder import open_journal
from ort_optim.cluster.states import Record
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.cluster.submitting.tokens import may_act
from ort_optim.errors import InputError

ANSWER_S = 120.0
LOOK_EVERY_S = 0.02


def owned(journal: Journal, job: str) -> Record:
    """The job, if the token of its owner is at hand. Raises InputError: it is not."""
    record = journal.record(job)
    may_act(record.owner, journal.owners())
    return record


def ask(args: argparse.Namespace, kind: str, body: Mapping[str, Any] | None = None) -> int:
    """Put a request to the submitter, wait for its answer, print it.

    Raises InputError: refused, nobody runs the batch, or no answer came.
    """
    with open_journal(args) as journal:
        record = owned(journal, args.job)
        _must_be_run(journal)
        number = journal.ask(record.id, kind, body or {})
        until_s = time.monotonic() + ANSWER_S
        while (answer := journal.answer_of(number)) is None:
            if time.monotonic() > until_s:
                raise InputError(
                    f"no answer within {ANSWER_S:.0f} s; it will still be done when the submitter "
                    "comes to it: see `batch status`"
                )
            time.sleep(LOOK_EVERY_S)
            if journal.lease() is None and journal.answer_of(number) is None:
                raise InputError("the submitter ended before it answered: submit again, then ask")
    if not answer.ok:
        raise InputError(answer.text)
    print(answer.text)
    return 0


def _must_be_run(journal: Journal) -> None:
    if journal.lease() is None:
        raise InputError(
            "no submitter runs for these jobs: start `batch submit` with the same file again, it "
            "goes on where it stopped"
        )
