"""Folders that long work leaves: complete or absent, and made again only when what they were made from has changed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from planish.errors import UserError

KEY = "inputs.sha256"


def digest(files: Iterable[Path], root: Path, *texts: str) -> str:
    """Of the contents of files, their names below `root`, and texts (options, versions of programs)."""
    total = hashlib.sha256()
    for part in texts:
        total.update(part.encode() + b"\0")
    for file in sorted(files):
        total.update(file.relative_to(root).as_posix().encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def stage(folder: Path, key: str, make: Callable[[Path], None]) -> Path:
    """The folder, with what `make` writes into the folder that it is given.

    Work that fails leaves its draft, a hidden folder beside this one, whose logs can be read; this one stays as it was.

    Args:
        folder: Where the result goes; replaced if it holds one of other inputs.
        key: Digest of the inputs; nothing is done where the folder has the same one.
        make: Does the work.

    Raises:
        UserError: The folder is there and is not a result.
    """
    mark = folder / KEY
    if mark.exists() and mark.read_text() == key:
        return folder
    if folder.exists() and not mark.exists() and any(folder.iterdir()):
        raise UserError("the folder is not a result, and is not overwritten", str(folder), "another folder")
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    make(draft)
    (draft / KEY).write_text(key)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return folder
