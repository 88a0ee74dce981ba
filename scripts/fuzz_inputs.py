"""Damaged model files: `optimize` must end with one clear line or a good model, never worse.

    python scripts/fuzz_inputs.py [--count 200] [--seed 0] [--json OUT.json] FOLDER [FOLDER ...]

Seeds are the `.onnx` files below the folders (those up to `--max-bytes`). Every mutant is made from
the seed number and its own number alone, so `--only 17` makes the seventeenth again. For each one
`python -m ort_optim optimize MUTANT OUT` runs in a process of its own, and must:

    end within the time limit, with exit code 0, 2 or 3
    say, when the code is 2, exactly one line on stderr; never print a traceback
    leave OUT absent (code 2 or 3), or (code 0) a whole file: parsed, and run by ONNX Runtime if the
    mutant was
    leave no other file in the folder of OUT except external data that OUT refers to

Exit code 3 if a mutant breaks one of these.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from _common import Outcome, Worker, list_models, load_shell, run_command
from google.protobuf.message import DecodeError, Message

TIMEOUT_S = 120
MEMORY_LIMIT_BYTES = 12 << 30  # of address space: a mutant may ask for a tensor of 2^40 elements
ALLOWED_CODES = (0, 2, 3)
OPTIONS = ["--quiet"]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """1 to 32 bits, anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 32))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_bits_in_structure(data: bytes, rng: random.Random) -> bytes:
    """1 to 8 bits near the ends, where names, shapes and lengths live rather than weights."""
    changed = bytearray(data)
    reach = min(len(changed), 2048)
    for _ in range(rng.choice((1, 2, 8))):
        place = rng.randrange(reach)
        changed[place if rng.random() < 0.5 else -1 - place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """The beginning of the file."""
    return data[: rng.randrange(len(data))]


def drop_middle(data: bytes, rng: random.Random) -> bytes:
    """A piece cut out, the rest moved up: every enclosing length is then wrong."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 7, 64, 4096)) :]


def huge_lengths(data: bytes, rng: random.Random) -> bytes:
    """A few bytes that may be lengths become the beginning of a very large one."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3))):
        place = rng.randrange(max(1, len(changed) - 5))
        changed[place : place + 5] = rng.choice((b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x7f"))
    return bytes(changed)


def swap_fields(data: bytes, rng: random.Random) -> bytes:
    """Parsed, then values exchanged between fields of the same kind."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 2, 5))):
        fields = list(scalar_fields(model))
        kind = rng.choice(sorted({type(value).__name__ for _, _, value in fields}))
        alike = [entry for entry in fields if type(entry[2]).__name__ == kind]
        (one, name, value), (other, key, second) = rng.choice(alike), rng.choice(alike)
        assign(one, name, second)
        assign(other, key, value)
    return model.SerializeToString()


def odd_values(data: bytes, rng: random.Random) -> bytes:
    """Parsed, then fields given values that a careless reader trips over."""
    model = onnx.ModelProto.FromString(data)
    fields = list(scalar_fields(model))
    odd: dict[type, tuple[Any, ...]] = {
        int: (0, -1, 1 << 31, -(1 << 31), 1 << 40, 255),
        float: (float("nan"), float("inf"), 0.0, -1e38),
        str: ("", "/", "\n", "a" * 5000, "\u202e"),
        bytes: (b"", b"\x00", b"\xff\xfe"),
    }
    for _ in range(rng.choice((1, 2, 5))):
        message, name, value = rng.choice(fields)
        assign(message, name, rng.choice(odd[type(value)]))
    return model.SerializeToString()


def shuffle_nodes(data: bytes, rng: random.Random) -> bytes:
    """Nodes, inputs of nodes or weights in another order, dropped, or doubled."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    group: Any = rng.choice((graph.node, graph.initializer, graph.input, graph.output))
    items = [type(item).FromString(item.SerializeToString()) for item in group]
    if items:
        action = rng.choice(("shuffle", "drop", "double"))
        if action == "shuffle":
            rng.shuffle(items)
        elif action == "drop":
            items.pop(rng.randrange(len(items)))
        else:
            items.append(rng.choice(items))
        del group[:]
        group.extend(items)
    if graph.node:
        node = rng.choice(list(graph.node))
        names = list(node.input)
        rng.shuffle(names)
        node.input[:] = names
    return model.SerializeToString()


def shuffle_tensors(data: bytes, rng: random.Random) -> bytes:
    """The contents of two weights exchanged, or one with dims or type that do not fit its data."""
    model = onnx.ModelProto.FromString(data)
    tensors = list(model.graph.initializer)
    if not tensors:
        return odd_values(data, rng)
    one, other = rng.choice(tensors), rng.choice(tensors)
    action = rng.choice(("data", "dims", "type", "negative"))
    if action == "data":
        one.raw_data, other.raw_data = other.raw_data, one.raw_data
    elif action == "dims":
        one.dims.append(rng.choice((0, 2, 1 << 33)))
    elif action == "type":
        one.data_type = rng.choice((0, 1, 7, 8, 10, 16, 22, 99))
    elif one.dims:
        one.dims[0] = -one.dims[0]
    return model.SerializeToString()


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bits,
    flip_bits_in_structure,
    truncate,
    drop_middle,
    huge_lengths,
    swap_fields,
    odd_values,
    shuffle_nodes,
    shuffle_tensors,
)


def scalar_fields(message: Message) -> list[tuple[Message, str | tuple[str, int], Any]]:
    """Every number, string and bytes field below `message`: (owner, name or (name, index), value).

    Weights' bytes count as one field each; long lists give their first eight elements.
    """
    found: list[tuple[Message, str | tuple[str, int], Any]] = []
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in value if field.is_repeated else [value]:
                found += scalar_fields(child)
        elif field.is_repeated:
            found += [(message, (field.name, i), v) for i, v in enumerate(value[:8])]
        else:
            found.append((message, field.name, value))
    return found


def assign(message: Message, name: str | tuple[str, int], value: Any) -> None:
    """Set one field found by `scalar_fields`; a value outside the field's range is left out."""
    try:
        if isinstance(name, tuple):
            getattr(message, name[0])[name[1]] = value
        else:
            setattr(message, name, value)
    except (ValueError, TypeError, IndexError):
        return


def make_mutant(seeds: list[Path], seed: int, number: int) -> tuple[str, bytes]:
    """Mutant `number`: a description and its bytes. The same arguments give the same bytes."""
    rng = random.Random(f"{seed}/{number}")
    source = seeds[rng.randrange(len(seeds))]
    data = source.read_bytes()
    mutate = MUTATIONS[number % len(MUTATIONS)]
    try:
        mutant = mutate(data, rng)
    except DecodeError:  # the seed itself cannot be parsed
        mutate, mutant = flip_bits, flip_bits(data, rng)
    return f"{source.name} {mutate.__name__}", mutant


def faults(outcome: Outcome, mutant: Path, out: Path, worker: Worker) -> list[str]:
    """Which requirements this run broke, each as one line."""
    found = []
    if outcome.code is None:
        return [f"no end after {TIMEOUT_S} s"]
    lines = [line for line in outcome.stderr.splitlines() if line.strip()]
    if outcome.code not in ALLOWED_CODES:
        found.append(f"exit code {outcome.code}: {outcome.last_line}")
    if "Traceback (most recent call last)" in outcome.stderr + outcome.stdout:
        found.append(f"traceback: {outcome.last_line}")
    elif outcome.code == 2 and len(lines) != 1:
        found.append(f"{len(lines)} lines on stderr instead of one")
    left = {path.name for path in out.parent.iterdir()} - {mutant.name, out.name}
    if outcome.code == 0:
        if not out.exists():
            return [*found, "exit code 0 without an output"]
        try:
            shell = load_shell(out)
        except DecodeError:
            return [*found, "the output is not a whole model"]
        left -= {e.value for t in shell.graph.initializer for e in t.external_data}
        before = worker.ask({"do": "compare", "a": str(mutant), "b": str(mutant)})
        if before["status"] == "same":
            after = worker.ask({"do": "compare", "a": str(mutant), "b": str(out)})
            if after["status"] != "same":
                found.append(f"the output differs: {after['status']} {after['detail']}")
    elif out.exists():
        found.append(f"exit code {outcome.code} with an output")
    if left:
        found.append(f"left behind: {sorted(left)}")
    return found


def run_one(
    command: list[str], seeds: list[Path], seed: int, number: int, worker: Worker
) -> dict[str, Any]:
    """Make and try one mutant. `command` is what precedes the two paths."""
    what, data = make_mutant(seeds, seed, number)
    with tempfile.TemporaryDirectory() as scratch:
        mutant, out = Path(scratch) / "mutant.onnx", Path(scratch) / "out.onnx"
        mutant.write_bytes(data)
        outcome = run_command([*command, str(mutant), str(out), *OPTIONS], TIMEOUT_S)
        broken = faults(outcome, mutant, out, worker)
    return {"number": number, "what": what, "code": outcome.code, "faults": broken} | {
        "said": outcome.last_line if outcome.code else ""
    }


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="just this mutant")
    parser.add_argument("--max-bytes", type=int, default=2_000_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the mutants that broke a requirement")
    args = parser.parse_args()
    found = (model.path for folder in args.folders for model in list_models(folder))
    seeds = [path for path in found if 0 < path.stat().st_size <= args.max_bytes]
    if not seeds:
        parser.error("no .onnx file below the folders")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, resource.RLIM_INFINITY))
    command = [sys.executable, "-m", "ort_optim", "optimize"]
    numbers = range(args.count) if args.only is None else [args.only]
    records = []
    with Worker() as worker:
        for number in numbers:
            record = run_one(command, seeds, args.seed, number, worker)
            records.append(record)
            if record["faults"]:
                print(number, record["what"], *record["faults"], sep=" | ", flush=True)
                if args.keep:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    data = make_mutant(seeds, args.seed, number)[1]
                    (args.keep / f"{args.seed}_{number}.onnx").write_bytes(data)
    broken = sum(bool(record["faults"]) for record in records)
    codes = dict(sorted(Counter(str(record["code"]) for record in records).items()))
    print(f"{len(records)} mutants, exit codes {codes}, {broken} broke a requirement")
    if args.json:
        args.json.write_text(json.dumps({"seed": args.seed, "mutants": records}, indent=1))
    return 3 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
