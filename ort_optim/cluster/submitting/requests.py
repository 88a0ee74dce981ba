"""What owners ask for from other terminals, as the submitter carries it out.

patch       change what the next start uses
restart     start a held job again, where it is
continue    let the frozen processes of a held job go on
release     give up a held job
cancel      end a job in any state
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ort_optim.cluster.keeping.status import Patch
from ort_optim.cluster.states import OCCUPYING, OVER, Answer, Record, Request, State
from ort_optim.cluster.submitting.backend import Order, OrderKind

if TYPE_CHECKING:
    from ort_optim.cluster.submitting.driver import Driver


def carry_out(driver: Driver, request: Request) -> None:
    """Answer a request, or hand it to the job's keeper, whose answer will be the request's."""
    record = driver.records[request.job]
    kind = OrderKind(request.kind)
    refused = _refusal(record, kind)
    if refused:
        driver.journal.answer(request.number, Answer(False, refused))
    elif record.state is State.QUEUED:  # a cancel, as `_refusal` lets nothing else pass
        driver.move(record.id, State.CANCELLED, "before it started")
        driver.journal.answer(request.number, Answer(True, f"{record.id} is {State.CANCELLED}"))
    else:
        patch = request.body.get("patch")
        driver.hand_over(
            Order(
                request.number,
                record.id,
                kind,
                patch=Patch.from_dict(patch) if patch else Patch(),
                archive=driver.archive_of(record),
                start=int(request.body.get("start", 0)),
            )
        )


def _refusal(record: Record, kind: OrderKind) -> str:
    """Why it can't be done; empty when it can."""
    if record.state in OVER:
        return (
            f"{record.id} is {record.state}: to run it again, `batch submit --again` its job file"
        )
    if record.state is State.QUEUED and kind is not OrderKind.CANCEL:
        return f"{record.id} waits: change the job file and submit it again, or cancel it"
    if kind is OrderKind.PATCH and record.state in OCCUPYING:
        return ""
    if kind is not OrderKind.CANCEL and record.state is not State.HELD:
        return f"{record.id} is {record.state}, and only a held job can be told to {kind}"
    return ""
