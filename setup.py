"""Builds the native library: plain C with no Python in it, so one wheel serves every Python 3."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NATIVE = "ort_optim/runtime/native"
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
FLAGS = (
    ["/std:c11", "/experimental:c11atomics", "/O2"]
    if sys.platform == "win32"
    else ["-std=c11", "-O2", "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra"]
)


class BuildLibrary(build_ext):
    """Without the suffix of a Python module, and without the export of its init function."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + SUFFIX

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return list(ext.export_symbols)


setup(
    ext_modules=[
        Extension(
            "ort_optim.runtime.ort_optim_native",
            sources=sorted(str(path) for path in Path(NATIVE).glob("*.c")),
            depends=sorted(str(path) for path in Path(NATIVE).glob("*.h")),
            extra_compile_args=FLAGS,
            extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
            optional=True,  # without a C compiler all models run through ONNX Runtime alone
        )
    ],
    cmdclass={"build_ext": BuildLibrary},
)
