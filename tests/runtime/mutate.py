"""`python -m tests.runtime.mutate SEED COUNT`: damaged plans, staged and run where accepted.

The code is a field of return instructions, so that any entry in it is a function that does nothing:
whatever goes wrong is the library's fault, and ends this process.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import random
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from ort_optim.runtime import library
from ort_optim.runtime.blob import encode
from tests.runtime.regions import HEADER_BYTES, Code, model_of, plan_of
from tests.runtime.sessions import image, options, weights

RETURN = {"x86_64": b"\xc3", "AMD64": b"\xc3", "aarch64": b"\xc0\x03\x5f\xd6"}
WORDS = (*range(-3, 20), 64, 255, 256, 4096, 2**31, 2**32, 2**46, 2**62, 2**63 - 1, -(2**63))
ADDRESS_SPACE_BYTES = 6 << 30


def returning_code(folder: Path) -> Code:
    path = folder / "nothing.code"
    path.write_bytes(bytes(HEADER_BYTES) + RETURN[platform.machine()] * 256)
    path.chmod(0o600)
    return Code(path, {"pack": 64, "scale_relu": 128, "add": 192, "nothing": 256})


def mutated(blob: bytes, rng: random.Random) -> bytes:
    """The blob with one to three changes; its stated length is put right most of the time."""
    data = bytearray(blob)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = 8 * rng.randrange(2, len(data) // 8 - 1)
        match rng.randrange(8):
            case 0:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + 8 * rng.randrange(1, 4)]
            case 2:
                data[at:at] = data[at : at + 8 * rng.randrange(1, 4)]
            case 3:
                other = 8 * rng.randrange(2, len(data) // 8)
                data[at : at + 8], data[other : other + 8] = (
                    data[other : other + 8],
                    data[at : at + 8],
                )
            case 4:
                number = struct.unpack_from("<q", data, at)[0] + rng.choice((-1, 1))
                data[at : at + 8] = struct.pack("<q", max(-(2**63), min(2**63 - 1, number)))
            case _:
                data[at : at + 8] = struct.pack("<q", rng.choice(WORDS))
    if rng.random() < 0.9:
        data[8:16] = struct.pack("<q", len(data))
    return bytes(data)


def try_out(blob: bytes, model: bytes, inputs: list[np.ndarray]) -> str:
    """How far a plan gets: "refused", "no session", "error" or "ran"."""
    try:
        library.stage(blob)
    except library.LibraryError:
        return "refused"
    registered: Any = options(2)
    try:
        registered.register_custom_ops_library(str(library.library_path()))
        session = ort.InferenceSession(model, registered, providers=["CPUExecutionProvider"])
    except Exception:
        return "no session"
    try:
        for x in inputs:
            session.run(None, {"x": x})
    except Exception:
        return "error"
    return "ran"


def main() -> None:
    """Counts of outcomes go to stdout."""
    rng = random.Random(int(sys.argv[1]))
    if "libasan" not in os.environ.get("LD_PRELOAD", "") and sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        code = returning_code(Path(folder))
        plan = plan_of(code, 8)
        other = dataclasses.replace(plan, name="R_other", program=(*plan.program, ("max", 3, 4)))
        blob = encode([plan, other], threads=2)
        model = model_of(weights()).SerializeToString()
        inputs = [image(2, 8, 5, 7), image(1, 8, 2, 2)]
        assert try_out(blob, model, inputs) == "ran"
        outcomes: dict[str, int] = {}
        for _ in range(int(sys.argv[2])):
            outcome = try_out(mutated(blob, rng), model, inputs)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    print(outcomes)


if __name__ == "__main__":
    main()
