"""Owner tokens: made once, private, and only the right one opens."""

import os
from pathlib import Path

import pytest

from ort_optim.cluster.submitting.tokens import digest_of, make_token, may_act, owner_of, token_file
from ort_optim.errors import InputError


@pytest.fixture(autouse=True)
def _config(tmp_path, monkeypatch):
    found = "ort_optim.cluster.submitting.tokens.platformdirs.user_config_path"
    monkeypatch.setattr(found, lambda name: tmp_path / name)


def test_a_token_is_made_once_and_only_its_digest_is_told():
    digest = make_token("ann")
    assert make_token("ann") == digest
    assert make_token("ben") != digest
    text = token_file("ann").read_text()
    assert digest == digest_of(text)
    assert text != digest


def test_a_token_is_private_and_no_draft_is_left():
    make_token("ann")
    assert token_file("ann").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in token_file("ann").parent.iterdir()] == ["ann.token"]


def test_only_the_owners_token_may_act():
    digests = {"ann": make_token("ann"), "ben": digest_of("another")}
    may_act("ann", digests)
    make_token("ben")
    with pytest.raises(InputError, match="another ben"):
        may_act("ben", digests)
    with pytest.raises(InputError, match="only its owner"):
        may_act("eve", digests)


def test_a_journal_without_the_owner_lets_nobody_act():
    make_token("ann")
    with pytest.raises(InputError, match="another ann"):
        may_act("ann", {})


def test_a_token_that_others_can_read_is_refused():
    make_token("ann")
    token_file("ann").chmod(0o644)
    with pytest.raises(InputError, match="others can read"):
        make_token("ann")


def test_names_of_owners_can_not_leave_the_folder():
    folder = token_file("ann").parent
    for name in ("../eve", "/etc/passwd", "a/b"):
        assert token_file(name).parent == folder
    for name in (".", ".."):
        assert token_file(name).resolve().parent == folder.resolve()


def test_jobs_without_an_owner_belong_to_who_runs_the_program(monkeypatch):
    assert owner_of("ann") == "ann"
    assert owner_of("")
    monkeypatch.setattr("getpass.getuser", lambda: (_ for _ in ()).throw(OSError()))
    assert owner_of("") == str(os.geteuid())


def test_a_link_in_place_of_a_token_is_refused(tmp_path: Path):
    make_token("ann")
    token_file("ben").symlink_to(token_file("ann"))
    with pytest.raises(OSError, match="symbolic links"):
        may_act("ben", {})
