"""`python -m tests.runtime.with_library LIBRARY MODULE ARGUMENT ...`: another build of the library.

MODULE is pytest, or a script of this folder.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from ort_optim.runtime import library


def main() -> None:
    chosen, module, *arguments = sys.argv[1:]
    path = Path(chosen).resolve()
    library.library_path = lambda: path
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
