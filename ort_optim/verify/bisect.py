"""Which of n numbered rewrites breaks the model."""

from __future__ import annotations

from collections.abc import Callable


def find_culprit(n_rewrites: int, ok: Callable[[int], bool], *, ends_known: bool = False) -> int:
    """The rewrite k in 1..n_rewrites such that the first k-1 rewrites are fine and the first k not.

    `ok(k)` says whether the model agrees with the reference after the first k rewrites only; it is
    called about log2(n_rewrites) times. Where `ok` is not monotone (a later rewrite hides an
    earlier fault, say) several such k exist and one of them is returned: both of its ends, k-1 and
    k, have been evaluated, never inferred.

    `ends_known`: the caller has already seen ok(0) hold and ok(n_rewrites) fail. Without it both
    are evaluated, and ValueError says which of the two is otherwise.
    """
    if n_rewrites < 1:
        raise ValueError("without a rewrite there is no rewrite at fault")
    if not ends_known:
        if ok(n_rewrites):
            raise ValueError(f"the model is fine after all {n_rewrites} rewrites")
        if not ok(0):
            raise ValueError("the model is at fault before the first rewrite")
    good, bad = 0, n_rewrites  # ok(good) holds, ok(bad) fails: kept by every step below
    while bad - good > 1:
        middle = (good + bad) // 2
        if ok(middle):
            good = middle
        else:
            bad = middle
    return bad
