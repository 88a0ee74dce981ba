"""Small kernels for tests of the compiler."""

from __future__ import annotations

from dataclasses import dataclass

from ort_optim.kernels.builder import Code
from ort_optim.kernels.isa import Isa


@dataclass(frozen=True)
class Scale:
    """y[i] = x[i] * factor for `vectors` vectors."""

    factor: float
    name: str = "scale"
    pointers: tuple[str, ...] = ("x", "y")
    values: tuple[str, ...] = ("vectors",)

    def write(self, isa: Isa) -> Code:
        """Generate the code."""
        code = Code(self.name, isa, self.pointers, self.values)
        with code.loop(code.value("vectors")) as i:
            at = i * code.lanes
            code.pointer("y").at(at).store(code.pointer("x").at(at).load() * self.factor)
        return code


@dataclass(frozen=True)
class Broken:
    """A kernel that can't be written."""

    name: str = "broken"
    pointers: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    def write(self, isa: Isa) -> Code:
        """Raise an error."""
        raise RuntimeError("no such instruction")


@dataclass(frozen=True)
class Deadly:
    """A kernel whose making ends the process."""

    number: int
    name: str = "deadly"
    pointers: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    def write(self, isa: Isa) -> Code:
        """End the process."""
        import os

        os._exit(7)
