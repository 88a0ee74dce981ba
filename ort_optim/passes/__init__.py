"""The rewrite passes, in the order they run. The order within a round is explained beside it."""

from ort_optim.passes import dead_code
from ort_optim.passes.base import Pass

PASSES: tuple[Pass, ...] = (
    dead_code.PASS,  # first and cheap: nothing later looks at what nobody needs
)
