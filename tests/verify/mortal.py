"""An engine that dies on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ort_optim.engine import Engine, Value
from ort_optim.errors import WorkerError


class Mortal(Engine):
    """An engine whose worker dies at the runs numbered in `deaths`."""

    def __init__(self, deaths: set[int]) -> None:
        super().__init__(threads=1, timeout_s=60)
        self.deaths = deaths
        self.runs = 0

    def run(
        self, handle: int, feeds: Mapping[str, Value], outputs: Sequence[str] | None = None
    ) -> dict[str, Value]:
        self.runs += 1
        if self.runs in self.deaths:
            self._kill()
            raise WorkerError("ONNX Runtime ended its process: SIGSEGV")
        return super().run(handle, feeds, outputs)
