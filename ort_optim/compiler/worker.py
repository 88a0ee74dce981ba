"""A process that compiles: `python -m ort_optim.compiler.worker`, spoken to over stdin and stdout.

It reads pickled `(kernel, isa)` pairs and answers each with an `Image`, or with the reason why
there is none. LLVM compiles one module at a time in a process, so several of these work at once.
"""

from __future__ import annotations

import os
import pickle
import sys

from ort_optim.compiler.image import Image, link
from ort_optim.compiler.llvm import compile_object
from ort_optim.kernels.base import Kernel
from ort_optim.kernels.isa import Isa


def compile_kernel(kernel: Kernel, isa: Isa) -> Image | str:
    """The kernel's code, or the reason why it can't be compiled."""
    try:
        return link(compile_object(kernel.write(isa).finish(), isa))
    except Exception as error:  # whatever goes wrong, only this kernel is lost
        return f"{type(error).__name__}: {error}"


def main() -> None:
    """Answer until the input ends."""
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that LLVM prints gets between the replies
    while True:
        try:
            kernel, isa = pickle.load(requests)
        except EOFError:
            return
        pickle.dump(compile_kernel(kernel, isa), replies, protocol=5)
        replies.flush()


if __name__ == "__main__":
    main()
