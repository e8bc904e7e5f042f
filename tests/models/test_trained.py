"""The networks whose weights are part of the package, and where their data comes from."""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from planish import models
from planish.errors import DataError, ModelError
from planish.models import data, fashion, letters, rda, weights
from planish.models.mlp import MLP

COUNT = {"fashion_cnn": 300, "fashion_vit": 300, "minilm_sentiment": 100}
FLOOR = {"fashion_cnn": 0.88, "fashion_vit": 0.86, "letters": 0.96, "minilm_sentiment": 0.68}


@pytest.mark.parametrize("name", list(FLOOR))
def test_a_trained_task_is_as_good_as_its_card(name, rated):
    try:
        task = models.get(name)(**({"count": COUNT[name]} if name in COUNT else {}))
    except DataError as error:
        if os.environ.get("PLANISH_REQUIRE"):
            raise
        pytest.skip(error.what)
    card = models.cards[name]
    assert sum(p.numel() for p in task.model.parameters()) == card.parameters
    assert (task.family, task.name) == (card.family, name)
    assert not task.model.training
    accuracy, *_ = task.judge()
    assert accuracy.name == card.metric == "accuracy"
    assert accuracy.value >= FLOOR[name]
    assert "right" in task.description
    assert sum(1 for _ in task.calibration) > 1


def test_splits_share_nothing():
    for splits in (fashion.SPLITS.values(), [("all", *rows) for rows in letters.SPLITS.values()]):
        rows = [(part, row) for part, first, last in splits for row in range(first, last)]
        assert len(rows) == len(set(rows))


def test_the_first_letter_is_a_t():
    features, labels = letters.letters("train")
    assert "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[labels[0]] == "T"
    # the first line of the UCI file: T,2,8,3,5,1,8,13,0,6,6,10,8,0,8,0,8
    assert ((features[0] + 1) * 7.5).round().int().tolist() == [2, 8, 3, 5, 1, 8, 13, 0, 6, 6, 10, 8, 0, 8, 0, 8]


def frame_of_r() -> bytes:
    """A data frame of a factor, integers and reals, as R's `save()` writes it; attributes follow their vector."""

    def text(word: str) -> bytes:
        return struct.pack(">ii", 0x40009, len(word)) + word.encode()

    def symbol(word: str) -> bytes:
        return struct.pack(">i", 1) + text(word)

    def strings(*words: str) -> bytes:
        return struct.pack(">ii", 16, len(words)) + b"".join(map(text, words))

    def pair(tag: bytes, value: bytes) -> bytes:
        return struct.pack(">i", 1026) + tag + value

    end = struct.pack(">i", 254)
    levels = pair(symbol("levels"), strings("a", "b")) + end
    factor = struct.pack(">ii3i", 13 | 512 | 256, 3, 2, 1, 2) + levels
    integers = struct.pack(">ii3i", 13, 3, 7, 8, 9)
    reals = struct.pack(">ii3d", 14, 3, 0.5, -1.0, 2.0)
    names = pair(symbol("names"), strings("kind", "count", "size")) + end
    frame = struct.pack(">ii", 19 | 512 | 256, 3) + factor + integers + reals + names
    head = b"RDX2\nX\n" + struct.pack(">3i", 2, 0x20000, 0x20300)
    return head + pair(symbol("Frame"), frame) + end


def test_a_frame_of_r_is_read(tmp_path):
    file = tmp_path / "frame.rda"
    file.write_bytes(lzma.compress(frame_of_r()))
    frame = rda.read_frame(file)
    assert {name: column.tolist() for name, column in frame.items()} == {
        "kind": [1, 0, 1],
        "count": [7, 8, 9],
        "size": [0.5, -1.0, 2.0],
    }


@pytest.mark.parametrize(
    "content",
    [b"", b"text", lzma.compress(b"RDX3\nX\n"), lzma.compress(frame_of_r()[:-40]), lzma.compress(frame_of_r()[:60])],
)
def test_what_is_no_frame_is_refused(tmp_path, content):
    (tmp_path / "frame.rda").write_bytes(content)
    with pytest.raises(DataError, match="not a data frame"):
        rda.read_frame(tmp_path / "frame.rda")


def debian_package(file: str, content: bytes) -> bytes:
    """An `ar` archive with the three members of a `.deb`; a member of odd length is padded."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        info = tarfile.TarInfo(f"./{file}")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    out = b"!<arch>\n"
    for name, part in (("debian-binary", b"2.0\n1"), ("control.tar.xz", b"abc"), ("data.tar.xz", packed.getvalue())):
        out += f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode() + part + b"\n" * (len(part) % 2)
    return out


@pytest.fixture
def apt(tmp_path, monkeypatch) -> Path:
    """An `apt-get` that copies the package beside it, or fails as the real one does; and no real one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "apt-get"
    program.write_text(
        f"#!/bin/sh\n/bin/cat {folder}/shelf.deb > probe_1.0_all.deb 2>/dev/null && exit 0\n"
        "/bin/rm -f probe_1.0_all.deb; echo 'E: Unable to locate package probe' >&2; exit 100\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_a_file_of_a_debian_package_is_fetched_once(apt):
    content, file = np.arange(99, dtype=np.uint8).tobytes(), "usr/share/probe/numbers.gz"
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(DataError, match="Unable to locate") as caught:
        data.debian_file("probe", file, digest)
    assert "apt-get install probe" in caught.value.hint
    (apt / "shelf.deb").write_bytes(debian_package(file, content))
    kept = data.debian_file("probe", file, digest)
    assert kept.read_bytes() == content
    (apt / "shelf.deb").unlink()
    assert data.debian_file("probe", file, digest) == kept
    (apt / "apt-get").unlink()
    kept.write_bytes(b"damaged")
    with pytest.raises(DataError, match="no apt-get"):
        data.debian_file("probe", file, digest)


def test_another_version_of_the_data_is_refused(apt):
    (apt / "shelf.deb").write_bytes(debian_package("usr/share/probe/a", b"new"))
    for file in ("usr/share/probe/a", "usr/share/probe/b"):
        with pytest.raises(DataError, match="another version"):
            data.debian_file("probe", file, hashlib.sha256(b"old").hexdigest())


def test_weights_are_read_as_they_were_rounded(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    torch.manual_seed(0)
    model = weights.rounded(MLP((3, 4, 2)))
    weights.write_weights("probe", model, "1 of 2 right")
    again = MLP((3, 4, 2))
    assert weights.read_weights("probe", again) == "1 of 2 right"
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    for name, other in (("absent", MLP((3, 4, 2))), ("probe", MLP((3, 5, 2)))):
        with pytest.raises(ModelError, match="cannot be read"):
            weights.read_weights(name, other)
