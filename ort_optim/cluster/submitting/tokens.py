"""Owner tokens: who may debug, patch, restart, release and cancel a job.

`submit` makes one random token per owner, in a file of the user's configuration folder that only
the user can read. The journal holds its SHA-256, so reading the journal gives nobody the right to
act on a job. To act for an owner from another account, that file has to be handed over.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import platformdirs

from ort_optim.errors import InputError


def owner_of(name: str) -> str:
    """The owner a job file names; who runs this program when it names none."""
    if name:
        return name
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user id without a name
        return str(os.geteuid())


def token_file(owner: str) -> Path:
    folder = platformdirs.user_config_path("ort_optim") / "batch_tokens"
    return folder / f"{quote(owner, safe='')}.token"


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def make_token(owner: str) -> str:
    """The owner's token, made where there is none yet; its SHA-256 is what is given back."""
    path = token_file(owner)
    path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    # Written whole under another name first: two submitters at once end with one token.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    return digest_of(_read(path))


def may_act(owner: str, digests: Mapping[str, str]) -> None:
    """Raises InputError when the token at hand is not that of the job's owner.

    `digests` are those of the journal.
    """
    path = token_file(owner)
    if not path.exists():
        raise InputError(
            f"this job belongs to {owner}, whose token you do not have ({path}): "
            "only its owner may do that"
        )
    if not hmac.compare_digest(digest_of(_read(path)), digests.get(owner, "")):
        raise InputError(
            f"this job belongs to another {owner}: the token in {path} is not the one it was "
            "submitted with"
        )


def _read(path: Path) -> str:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(handle) as file:
        facts = os.fstat(file.fileno())
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise InputError(f"{path}: others can read this token: `chmod 600` it, or delete it")
        return file.read().strip()
