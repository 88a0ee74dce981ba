from __future__ import annotations

import numpy as np
from onnx import ModelProto

from ort_optim.engine import Engine, ModelSource
from ort_optim.verify.compare import Tolerance
from ort_optim.verify.layers import LayerReport, first_parting
from tests.verify.models import chain, parse

FEEDS = {"x": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}


def compare(engine: Engine, a: ModelProto, b: ModelProto) -> LayerReport:
    pair = [(model, ModelSource(proto=model.SerializeToString())) for model in (a, b)]
    return first_parting(engine, pair[0], pair[1], FEEDS, Tolerance())


def test_equal_models_do_not_part(engine: Engine) -> None:
    report = compare(engine, chain(), chain())
    assert report.parting is None
    assert report.matched == 3
    assert (report.only_a, report.only_b, report.inner, report.unreadable) == (0, 0, 0, 0)


def test_the_node_at_fault_is_named_in_both_models(engine: Engine) -> None:
    report = compare(engine, chain("Relu"), chain("Abs"))
    assert report.parting is not None
    assert report.parting.tensor == "b"
    assert report.parting.node_a.startswith("Relu")
    assert report.parting.node_b.startswith("Abs")
    assert report.parting.comparison.max_abs == 2.0


def long_chain(length: int, wrong_at: int | None = None) -> ModelProto:
    nodes = []
    for i in range(length):
        name = "y" if i == length - 1 else f"t{i}"
        before = "x" if i == 0 else f"t{i - 1}"
        op = "Neg" if i == wrong_at else "Identity"
        nodes.append(f"{name} = {op}({before})")
    return parse(f"g (float[2, 3] x) => (float[2, 3] y) {{ {' '.join(nodes)} }}")


def test_bisection_takes_few_runs(engine: Engine) -> None:
    for wrong_at in (0, 1, 137, 298, 299):
        report = compare(engine, long_chain(300), long_chain(300, wrong_at))
        assert report.parting is not None
        assert report.parting.tensor == ("y" if wrong_at == 299 else f"t{wrong_at}")
        assert report.runs <= 5


def test_a_fault_on_a_side_branch_is_found_though_later_tensors_agree(engine: Engine) -> None:
    template = """
        g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z)
        {{ a = {op}(x)  y = Relu(a)  c = Relu(x)  d = Exp(c)  z = Identity(d) }}
    """
    report = compare(engine, parse(template.format(op="Abs")), parse(template.format(op="Neg")))
    assert report.parting is not None
    assert report.parting.tensor == "a"


def test_a_fault_that_no_output_shows_is_found_all_the_same(engine: Engine) -> None:
    template = """
        g (float[2, 3] x) => (float[2, 3] y)
        <float zero = {{0}}>
        {{ a = {op}(x)  b = Mul(a, zero)  y = Add(b, x) }}
    """
    report = compare(engine, parse(template.format(op="Abs")), parse(template.format(op="Neg")))
    assert report.parting is not None
    assert report.parting.tensor == "a"


def test_names_that_match_only_in_part_are_counted(engine: Engine) -> None:
    a = parse(
        "g (float[2, 3] x) => (float[2, 3] y) { p = Abs(x)  q = Exp(p)  r = Sqrt(q)  y = Neg(r) }"
    )
    b = parse(
        "g (float[2, 3] x) => (float[2, 3] y) { p = Abs(x)  s = Exp(p)  r = Abs(s)  y = Neg(r) }"
    )
    report = compare(engine, a, b)
    assert (report.matched, report.only_a, report.only_b) == (3, 1, 1)
    assert report.parting is not None
    assert report.parting.tensor == "r"


def test_nodes_inside_subgraphs_are_counted_not_searched(engine: Engine) -> None:
    template = """
        g (float[2, 3] x) => (float[2, 3] y)
        <bool c = {{1}}>
        {{
            b = If(c) <
                then_branch = t () => (float[2, 3] p) {{ n = {op}(x)  p = Abs(n) }},
                else_branch = e () => (float[2, 3] q) {{ q = Identity(x) }}
            >
            y = Relu(b)
        }}
    """
    report = compare(engine, parse(template.format(op="Exp")), parse(template.format(op="Neg")))
    assert report.parting is not None
    assert report.parting.tensor == "b"
    assert report.inner == 3


def test_plain_data_of_both_outcomes(engine: Engine) -> None:
    assert compare(engine, chain(), chain()).as_plain()["tensor"] is None
    plain = compare(engine, chain("Relu"), chain("Abs")).as_plain()
    assert plain["tensor"] == "b"
    assert plain["comparison"]["passed"] is False
