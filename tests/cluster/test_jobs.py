"""Job files: what is read, and every fault in one line before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ort_optim.cli.batch.job_file import load_jobs
from ort_optim.cluster.jobs import Job, Resources
from ort_optim.errors import InputError
from tests.cluster.shorthand import GIB

Load = Callable[[str], list[Job]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Reads a job file, `version` aside, in a folder with m.onnx, n.onnx and samples.npz."""
    for name in ("m.onnx", "n.onnx", "samples.npz", "facts.json"):
        (tmp_path / name).touch()

    def call(text: str) -> list[Job]:
        path = tmp_path / "jobs.yaml"
        path.write_text(f"version: 1\n{text}")
        return list(load_jobs(path).jobs)

    return call


Refuses = Callable[[str], str]


@pytest.fixture
def refuses(load: Load) -> Refuses:
    """The one line with which a job file is refused."""

    def call(text: str) -> str:
        with pytest.raises(InputError) as caught:
            load(text)
        assert "\n" not in str(caught.value)
        assert "jobs.yaml" in str(caught.value)
        return str(caught.value)

    return call


def of(fields: str) -> str:
    """A file of one job with these fields."""
    return f"jobs:\n- {{id: a, model: m.onnx, output: o.onnx, {fields}}}"


def test_every_field_is_read(load: Load, tmp_path: Path) -> None:
    (job, count) = load(
        """
defaults: {owner: ann, resources: {cpus: 1, memory: 1GiB}, timeout: 10min, env: {A: "1"}}
jobs:
  - id: vgg19
    model: m.onnx
    output: out/vgg19.onnx
    options: {threads: 1, disable: [tiling], data: samples.npz, explain: true, shape: "x:1x3"}
    resources: {cpus: 2.5, gpus: 0.5, gpu_model: [A100, H100], gpu_memory: 8GiB, labels: {z: 1}}
    target: facts.json
    duration: 90s
    priority: 5
    after: [count]
    container: true
    hold: 2h
    env: {B: x}
  - {id: count, command: [python, count.py, 3]}
"""
    )
    assert job == Job(
        id="vgg19",
        model=tmp_path / "m.onnx",
        output=tmp_path / "out/vgg19.onnx",
        options={
            "threads": 1,
            "disable": ["tiling"],
            "data": str(tmp_path / "samples.npz"),
            "explain": True,
            "shape": "x:1x3",
        },
        resources=Resources(
            milli_cpus=2500,
            milli_gpus=500,
            memory=GIB,
            gpu_memory=8 * GIB,
            gpu_models=frozenset({"A100", "H100"}),
            labels={"z": "1"},
        ),
        target=str(tmp_path / "facts.json"),
        priority=5,
        duration_s=90,
        owner="ann",
        after=("count",),
        container=True,
        timeout_s=600,
        hold_s=7200,
        env={"A": "1", "B": "x"},
    )
    assert count.command == ("python", "count.py", "3")
    assert count.resources == Resources(memory=GIB)


def test_defaults_of_options_are_for_models_alone(load: Load) -> None:
    jobs = load(
        "defaults: {options: {threads: 2}, target: facts.json}\njobs:\n"
        "- {id: a, model: m.onnx, output: o.onnx, options: {rtol: 0.1}}\n"
        "- {id: b, command: [x]}"
    )
    assert jobs[0].options == {"threads": 2, "rtol": 0.1}
    assert (jobs[1].options, jobs[1].target) == ({}, "native")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ("prority: 1", ":3: jobs[0].prority: unknown field; did you mean priority?"),
        ("resources: {gpu: 1}", "jobs[0].resources.gpu: unknown field; did you mean gpus?"),
        ("resources: {cpus: -1}", "resources.cpus: must be from 0 to"),
        ("resources: {cpus: 1000000000}", "resources.cpus: must be from 0 to"),
        ("resources: {cpus: many}", "must be a number, not 'many'"),
        ("resources: {gpus: 1.5}", "1.5: a share of one device is below 1"),
        ("resources: {gpus: 0.0001}", "more than three decimals"),
        ("resources: {servers: -2}", "servers: must be from 0 to"),
        ("resources: {servers: 1.5}", "must be a whole number"),
        ("resources: {memory: -1}", "memory: '-1' is no size of anything"),
        ("resources: {memory: 5 apples}", "'5 apples' is no size: write such as"),
        ("resources: {gpu_model: A100}", "gpu_model: needs `gpus`, too"),
        ("resources: {gpus: 0, gpu_memory: 1GiB}", "gpu_memory: needs `gpus`, too"),
        ("resources: {gpus: 1, gpu_model: []}", "lists no model"),
        ("resources: [1]", "must be a mapping of fields, not a list"),
        ("duration: 0", "duration: '0' is out of range"),
        ("duration: 5m", "'5m' is no duration: write such as 90s"),
        ("priority: 2000", "priority: must be from -1000 to 1000"),
        ("priority: high", "must be a whole number, not 'high'"),
        ("container: maybe", "must be true or false"),
        ("after: b", "after: must be a list"),
        ("after: [b]", "after: there is no job 'b'"),
        ("after: [a]", "cycle in `after`: a <- a"),
        ("command: [x]", "model: belongs to a model, and this job has a command"),
        ("env: {'A=B': 1}", "is no name of an environment variable"),
        ("target: none.json", "target: none.json: there is no such file"),
        ("options: {threds: 1}", "options: `optimize` has no option threds; did you mean threads?"),
        ("options: {threads: 0}", "argument --threads: 0: must be at least 1"),
        ("options: {threads: true}", "option threads: takes a text or a number, not True"),
        ("options: {threads: [1, 2]}", "option threads: takes one value, not a list"),
        ("options: {rtol: many}", "argument --rtol: many: must be a number"),
        ("options: {explain: 1}", "option explain: takes true or false, not 1"),
        ("options: {shape: x}", "--shape x: write NAME:1x3x224x224"),
        ("options: {disable: {a: 1}}", "option disable: takes a text or a number"),
        ("options: {quiet: true}", "option quiet can't be given here"),
        ("options: {target: native}", "write `target:` beside `model:`"),
        ("options: {unverified: true, require-verify: true}", "not allowed with"),
    ],
)
def test_a_bad_field_is_refused_with_its_place(refuses: Refuses, fields: str, told: str) -> None:
    assert told in refuses(of(fields))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no `jobs`"),
        ("jobs: []", "lists no job"),
        ("jobs: 3", "must be a list"),
        ("job: []", "job: unknown field; did you mean jobs?"),
        ("defaults: {id: x}\njobs: []", "defaults.id: unknown field"),
        ("jobs:\n- {model: m.onnx, output: o}", "jobs[0]: has no id"),
        ("jobs:\n- {id: a}", "has no model: give model and output, or a command"),
        ("jobs:\n- {id: a, model: m.onnx}", "has no output"),
        ("jobs:\n- {id: a, model: none.onnx, output: o}", "none.onnx: there is no such file"),
        ("jobs:\n- {id: a, command: []}", "must name a program"),
        ("jobs:\n- {id: a, command: x}", "must be a list"),
        ("jobs:\n- {id: a/b, command: [x]}", "write 1 to 100 of"),
        ("jobs:\n- {id: .., command: [x]}", "write 1 to 100 of"),
        ("jobs:\n- {id: '', command: [x]}", "write 1 to 100 of"),
        (f"jobs:\n- {{id: {'x' * 101}, command: [x]}}", "write 1 to 100 of"),
        (
            "jobs:\n- {id: a, command: [x]}\n- {id: a, command: [x]}",
            ":4: jobs[1]: id 'a' is taken by the job on line 3",
        ),
        (
            "jobs:\n- {id: a, command: [x], after: [b]}\n- {id: b, command: [x], after: [a]}",
            "cycle in `after`: ",
        ),
        (
            "jobs:\n- {id: a, model: m.onnx, output: o}\n- {id: b, model: n.onnx, output: o}",
            "job 'a' writes it, too",
        ),
        (
            "jobs:\n- {id: a, model: m.onnx, output: o}\n- {id: b, model: o, output: p}",
            "job 'a' writes it: add it to `after`",
        ),
        (
            "jobs:\n- {id: a, model: m.onnx, output: o}\n- {id: b, model: n.onnx, output: x/../o}",
            "job 'a' writes it, too",
        ),
        (
            "jobs:\n- {id: a, model: m.onnx, output: n.onnx}\n- {id: b, model: n.onnx, output: o}",
            "n.onnx: job 'a' writes it: add it to `after`",
        ),
        ("jobs:\n- {id: a, model: m.onnx, output: .}", "is a folder: name a file"),
        ("jobs:\n- {id: a, command: [x]}\n- &b {id: b, command: [x]}", "anchors and aliases"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(refuses: Refuses, text: str, told: str) -> None:
    assert told in refuses(text)


@pytest.mark.parametrize("version", ["version: 2\n", "version: x\n", "version: true\n", ""])
def test_other_versions_are_refused(tmp_path: Path, version: str) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_text(f"{version}jobs:\n- {{id: a, command: [x]}}")
    with pytest.raises(InputError, match="version"):
        load_jobs(path)


def test_a_model_may_be_the_output_of_a_job_that_is_waited_for(load: Load, tmp_path: Path) -> None:
    jobs = load(
        "jobs:\n- {id: a, model: m.onnx, output: o.onnx}\n- {id: b, command: [x], after: [a]}\n"
        "- {id: c, model: o.onnx, output: p.onnx, after: [b]}"
    )
    assert jobs[2].model == tmp_path / "o.onnx"


def test_a_model_may_be_replaced_by_itself_and_by_a_job_that_waits(load: Load) -> None:
    load(
        "jobs:\n- {id: a, model: m.onnx, output: m.onnx}\n- {id: b, model: n.onnx, output: o}\n"
        "- {id: c, model: m.onnx, output: n.onnx, after: [a, b]}"
    )


def test_defaults_about_gpus_are_for_jobs_that_have_gpus(load: Load) -> None:
    some, none = load(
        "defaults: {resources: {gpu_model: T4, gpu_memory: 1GiB}}\njobs:\n"
        "- {id: a, command: [x], resources: {gpus: 1}}\n- {id: b, command: [x]}"
    )
    assert some.resources == Resources(milli_gpus=1000, gpu_memory=GIB, gpu_models={"T4"})
    assert none.resources == Resources()


def test_a_job_without_resources_takes_one_cpu(load: Load) -> None:
    assert load("jobs:\n- {id: a, command: [x]}")[0].resources == Resources(milli_cpus=1000)
