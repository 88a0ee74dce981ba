"""Python source from the standard library, each character labelled by the kind of its token."""

from __future__ import annotations

import io
import keyword
import tokenize
from pathlib import Path

import numpy as np

SOURCE = "modules of the Python standard library (PSF-2.0), labelled by its tokenize module"
TRAINING = (
    "argparse", "ast", "bdb", "calendar", "cmd", "code", "codecs", "configparser", "copy", "csv",
    "dataclasses", "difflib", "dis", "doctest", "enum", "fractions", "ftplib", "functools",
    "gettext", "graphlib", "gzip", "heapq", "imaplib", "inspect", "ipaddress", "locale", "mailbox",
    "mimetypes", "optparse", "os", "pathlib", "pdb", "pickle", "platform", "plistlib", "pprint",
    "profile", "queue", "random", "sched", "selectors", "shelve", "shlex", "shutil", "smtplib",
    "socket", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap",
    "threading", "timeit", "trace", "traceback", "turtle", "typing", "uuid", "warnings", "zipfile",
)  # fmt: skip
HELD_OUT = ("bisect", "contextlib", "fileinput", "getopt", "glob", "netrc", "reprlib", "tokenize")
CLASSES = ("space", "keyword", "name", "number", "string", "comment", "operator")
_CLASS_OF = {
    tokenize.NUMBER: 3,
    tokenize.STRING: 4,
    tokenize.COMMENT: 5,
    tokenize.OP: 6,
}


def labelled(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A module's characters as codes 0..127 (others become 127), and their classes; both (L,)."""
    text = (Path(tokenize.__file__).parent / f"{name}.py").read_text("utf-8")
    starts = np.concatenate([[0], np.cumsum([len(line) for line in io.StringIO(text, newline="")])])
    classes = np.zeros(len(text), np.int8)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        begin = starts[token.start[0] - 1] + token.start[1]
        end = starts[token.end[0] - 1] + token.end[1]
        if token.type == tokenize.NAME:
            classes[begin:end] = 1 if keyword.iskeyword(token.string) else 2
        elif token.type in _CLASS_OF:
            classes[begin:end] = _CLASS_OF[token.type]
    codes = np.minimum(np.array([ord(c) for c in text], np.int64), 127)
    return codes, classes.astype(np.int64)


def windows(
    names: tuple[str, ...], count: int, length: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pieces that start at the start of a line and have 3/4 to all of `length` characters:
    codes, mask (1 where there is text) and classes (-1 where there is none), each (N, length)."""
    modules = [m for m in (labelled(name) for name in names) if len(m[0]) > 2 * length]
    codes = np.zeros((count, length), np.int64)
    mask = np.zeros((count, length), np.int64)
    classes = np.full((count, length), -1, np.int64)
    line_starts = [np.nonzero(m[0][: -2 * length] == ord("\n"))[0] + 1 for m in modules]
    for i in range(count):
        which = int(rng.integers(len(modules)))
        begin = int(rng.choice(line_starts[which]))
        size = int(rng.integers(3 * length // 4, length + 1))
        codes[i, :size] = modules[which][0][begin : begin + size]
        classes[i, :size] = modules[which][1][begin : begin + size]
        mask[i, :size] = 1
    return codes, mask, classes
