"""Parcels: all that a job reads goes, all that it wrote comes back, nothing leaves its folder."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.ray.transfer import Parcel, collect, deliver, pack, unpack
from ort_optim.errors import InputError


def model_with_external_data(path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [weights],
    )
    onnx.save(
        helper.make_model(graph),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )


@pytest.fixture
def job(tmp_path):
    model = tmp_path / "m.onnx"
    model_with_external_data(model)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.npz").write_bytes(b"data")
    return Job(
        "m",
        model=model,
        output=tmp_path / "out" / "result.onnx",
        options={"data": str(tmp_path / "data"), "threads": 1, "target": "native"},
    )


def test_the_model_its_weights_and_the_files_of_options_arrive(job, tmp_path):
    there = unpack(pack(job), job, tmp_path / "there" / "jobs" / "m")
    onnx.checker.check_model(str(there.model), full_check=True)
    assert (there.model.parent / "weights.bin").stat().st_size == 64 * 64 * 4
    assert (Path(there.options["data"]) / "x.npz").read_bytes() == b"data"
    assert (there.options["threads"], there.options["target"]) == (1, "native")
    assert there.output.is_relative_to(tmp_path / "there" / "jobs" / "m")


def test_what_was_written_comes_to_where_the_job_file_wants_it(job, tmp_path):
    folder = tmp_path / "there" / "jobs" / "m"
    there = unpack(pack(job), job, folder)
    there.output.write_bytes(b"model")
    there.output.with_name("result.onnx.1.data").write_bytes(b"weights")
    (folder / "report.json").write_text("{}")
    (folder / "log").write_text("log")
    deliver(collect(job, folder), job, tmp_path / "home")
    assert job.output.read_bytes() == b"model"
    assert job.output.with_name("result.onnx.1.data").read_bytes() == b"weights"
    assert (tmp_path / "home" / "report.json").read_text() == "{}"
    assert (tmp_path / "home" / "log").read_text() == "log"


def test_a_job_without_output_brings_its_log(job, tmp_path):
    command = Job("c", command=("true",))
    folder = tmp_path / "there" / "jobs" / "c"
    unpack(pack(command), command, folder)
    (folder / "log").write_text("log")
    deliver(collect(command, folder), command, tmp_path / "home")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["log"]


def test_links_among_the_outputs_are_not_followed(job, tmp_path):
    folder = tmp_path / "there" / "jobs" / "m"
    there = unpack(pack(job), job, folder)
    there.output.symlink_to("/etc/passwd")
    assert collect(job, folder).files == {}


def test_names_that_leave_the_folder_are_refused(job, tmp_path):
    for name in ("outputs/../../evil", "outputs//tmp/evil"):
        with pytest.raises(InputError, match="leaves the folder"):
            deliver(Parcel({name: b"x"}), job, tmp_path / "home")
    with pytest.raises(InputError, match="leaves the folder"):
        unpack(Parcel({"../../evil": b"x"}), job, tmp_path / "there" / "jobs" / "m")


def test_weights_that_are_not_there_are_told(job, tmp_path):
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"weights\.bin"):
        pack(job)


def test_a_folder_that_others_can_write_is_refused(job, tmp_path):
    folder = tmp_path / "there" / "jobs" / "m"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(InputError, match="others can write it"):
        unpack(pack(job), job, folder)
