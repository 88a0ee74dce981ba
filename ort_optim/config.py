"""Everything a run of `optimize` can be told, in one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ort_optim.errors import InputError


@dataclass(frozen=True)
class Config:
    """The options of `optimize`. Most are command-line options, too.

    Attributes:
        target: "native", the name of a shipped target, or the path of a facts file.
        threads: Intra-op threads for timing; None takes the target's cores.
        shapes: Static shapes by input name; other dynamic dimensions stay dynamic.
        data: A .npz file or a folder with input samples; None generates inputs.
        rtol, atol: Tolerances for float outputs; None derives them from the element type.
        disable: Names of passes to leave out.
        keep_initializer_inputs: Leave weights among the graph inputs, where callers override them.
        unverified: Rewrite models that can't be run, too.
        require_verify: Raise VerificationError where the outputs can't be compared.
        timing: Time the result beside the original, and undo what made it slower.
        sets: How many generated input sets to compare on.
        seed: Of the generated inputs.
        timeout_s: How long one call into ONNX Runtime may take.
        search_seconds: How long rewrites at fault are searched for, from the first fault on; then
            all passes that are still suspect are left out.
    """

    target: str = "native"
    threads: int | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    data: Path | None = None
    rtol: float | None = None
    atol: float | None = None
    disable: frozenset[str] = frozenset()
    keep_initializer_inputs: bool = False
    unverified: bool = False
    require_verify: bool = False
    timing: bool = True
    sets: int = 3
    seed: int = 0
    timeout_s: float = 600.0
    search_seconds: float = 300.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "disable", frozenset(self.disable))
        object.__setattr__(self, "shapes", dict(self.shapes))
        if self.data is not None:
            object.__setattr__(self, "data", Path(self.data))
        if self.unverified and self.require_verify:
            raise InputError("unverified and require_verify exclude each other: give one")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads must be at least 1, not {self.threads}")
        if self.sets < 1:
            raise InputError(f"sets must be at least 1, not {self.sets}")
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, not {self.seed}")
        if not 0 < self.timeout_s < float("inf"):
            raise InputError(f"timeout_s must be a number above 0, not {self.timeout_s}")
        for name in ("rtol", "atol", "search_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise InputError(f"{name} must be a number of at least 0, not {value}")
        for name, shape in self.shapes.items():
            if any(size < 0 for size in shape):
                raise InputError(f"shape of '{name}' has a negative dimension: {shape}")
