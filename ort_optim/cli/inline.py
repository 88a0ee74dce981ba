"""`inline MODEL OUT`: the plain file again, without the functions that optimizing put in."""

from __future__ import annotations

import argparse
from pathlib import Path

from ort_optim.graph import load_model
from ort_optim.graph.functions import inline_functions
from ort_optim.graph.save import check_writable, clean_up, copy_model, save_model

NAME = "inline"
HELP = "write the plain model: calls of ort_optim's functions become the nodes they stand for"

OWN_DOMAINS = frozenset({"ort_optim"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="MODEL.onnx")
    parser.add_argument("output", type=Path, metavar="OUT.onnx", help="may be the same file")
    parser.add_argument(
        "--all", action="store_true", help="inline every model-local function, not only our own"
    )


def run(args: argparse.Namespace) -> int:
    check_writable(args.output)
    loaded = load_model(args.input)
    clean_up(args.output)
    plain = inline_functions(loaded.model, None if args.all else OWN_DOMAINS)
    if plain is loaded.model:
        copy_model(loaded, args.output)
        print(f"{args.input} has no such functions: copied as it is")
        return 0
    save_model(plain, loaded.folder, args.output, external=bool(loaded.data_files))
    count = len(loaded.model.functions) - len(plain.functions)
    print(f"{count} function{'s' if count != 1 else ''} inlined into {args.output}")
    return 0
