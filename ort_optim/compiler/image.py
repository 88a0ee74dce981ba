"""From an object file to an image: code and constants in one flat piece that runs where it lies.

A kernel calls nothing outside and holds no absolute address, so its sections can be laid out one
behind the other and everything between them resolved as a distance. Such a piece needs no loader:
a file that holds it is mapped, and the code in it runs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

from ort_optim.errors import OrtOptimError

ALIGNMENT = 64

DISTANCES = {
    "EM_X86_64": {2: "R_X86_64_PC32", 4: "R_X86_64_PLT32"},
}
"""By machine the relocations that are 32-bit distances: symbol + addend - place."""


class ImageError(OrtOptimError):
    """An object that can't be an image."""


@dataclass(frozen=True)
class Image:
    """A flat piece of position-independent code.

    Attributes:
        code: The bytes, to be placed at any multiple of 64.
        entries: Offsets of the public functions by name.
    """

    code: bytes
    entries: dict[str, int]


def link(compiled: bytes) -> Image:
    """Lay out an ELF object. Raises ImageError where it refers to anything outside."""
    elf = ELFFile(BytesIO(compiled))
    machine = elf["e_machine"]
    if machine not in DISTANCES:
        raise ImageError(f"objects for {machine} can't be laid out yet")
    places, code = _lay_out(elf)
    symbols: Any = elf.get_section_by_name(".symtab")
    for section in elf.iter_sections():
        if isinstance(section, RelocationSection) and section["sh_info"] in places:
            for relocation in section.iter_relocations():
                _relocate(code, places, symbols, section["sh_info"], relocation, machine)
    entries = {
        symbol.name: places[symbol["st_shndx"]] + symbol["st_value"]
        for symbol in symbols.iter_symbols()
        if symbol["st_info"]["bind"] == "STB_GLOBAL" and symbol["st_shndx"] in places
    }
    return Image(bytes(code), entries)


def _lay_out(elf: Any) -> tuple[dict[int, int], bytearray]:
    """Where each section that is loaded lies, and their bytes."""
    places: dict[int, int] = {}
    code = bytearray()
    for index, section in enumerate(elf.iter_sections()):
        if not section["sh_flags"] & 2 or section.name.startswith((".eh_frame", ".note")):
            continue  # not loaded, or only for unwinding
        if section["sh_flags"] & 1:
            raise ImageError(f"section {section.name} is writable")
        code += bytes(-len(code) % ALIGNMENT)
        places[index] = len(code)
        code += section.data()
    return places, code


def _relocate(
    code: bytearray,
    places: dict[int, int],
    symbols: Any,
    section: int,
    relocation: Any,
    machine: str,
) -> None:
    symbol = symbols.get_symbol(relocation["r_info_sym"])
    if symbol["st_shndx"] not in places:
        raise ImageError(f"the code refers to '{symbol.name}' outside")
    if relocation["r_info_type"] not in DISTANCES[machine]:
        raise ImageError(f"relocation {relocation['r_info_type']} of {machine} is no distance")
    place = places[section] + relocation["r_offset"]
    value = places[symbol["st_shndx"]] + symbol["st_value"] + relocation["r_addend"]
    struct.pack_into("<i", code, place, value - place)
