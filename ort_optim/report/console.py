"""One way to print for terminals and pipes alike."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

PLAIN_WIDTH = 10_000
"""Piped text is never wrapped: each line stays one record for grep."""


def show(console: Console, content: RenderableType) -> None:
    """Print `content`: with colours and wrapped on a terminal, as plain long lines elsewhere.

    What the output's encoding lacks is written as an escape.
    """
    if console.is_terminal:
        console.print(content)
        return
    buffer = io.StringIO()
    Console(file=buffer, width=PLAIN_WIDTH, color_system=None, highlight=False).print(content)
    encoding = console.encoding or "utf-8"
    for line in buffer.getvalue().splitlines():
        plain = line.rstrip().encode(encoding, "backslashreplace").decode(encoding)
        console.file.write(plain + "\n")


def is_unicode(console: Console) -> bool:
    """Whether the console's encoding has more than ASCII."""
    return (console.encoding or "").lower().startswith("utf")
