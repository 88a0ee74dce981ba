"""What a debugger is told of the smallest part of a model that still fails."""

import pytest

from ort_optim.cluster.submitting.failing_part import failing_part


@pytest.fixture
def steps(tmp_path):
    folder = tmp_path / "work" / "steps"
    folder.mkdir(parents=True)
    return folder


def test_nothing_failed_nothing_is_told(tmp_path, steps):
    assert failing_part(tmp_path) == ""


def test_a_failed_pass_tells_how_to_get_the_part(tmp_path, steps):
    (steps / "failures.json").write_text("{}")
    assert "--option reduce=true" in failing_part(tmp_path)


def test_the_part_is_named_with_what_fails(tmp_path, steps):
    (steps / "smallest.txt").write_text("fuse_conv_bn raises an error\n")
    told = failing_part(tmp_path)
    assert str(steps / "smallest.onnx") in told
    assert told.endswith("fuse_conv_bn raises an error")


def test_a_link_out_of_the_folder_is_not_read(tmp_path, steps):
    (tmp_path / "secret").write_text("secret")
    (steps / "smallest.txt").symlink_to(tmp_path / "secret")
    assert failing_part(tmp_path) == ""
