from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from tests.support import require, require_package

from planish.errors import DataError, MissingExtra
from planish.models import data, sentences


@pytest.fixture
def archive(tmp_path):
    """A source package whose setup leaves a trace when it is run, and its hash."""
    trace = tmp_path / "setup-was-run"
    file = tmp_path / "shelf" / "planish_probe-1.0.tar.gz"
    file.parent.mkdir()
    with tarfile.open(file, "w:gz") as out:
        for name, text in {
            "setup.py": f"open({str(trace)!r}, 'w')\n__import__('setuptools').setup(name='planish-probe')\n",
            "PKG-INFO": "Metadata-Version: 1.0\nName: planish-probe\nVersion: 1.0\n",
        }.items():
            info = tarfile.TarInfo(f"planish_probe-1.0/{name}")
            info.size = len(text)
            out.addfile(info, io.BytesIO(text.encode()))
    return file, hashlib.sha256(file.read_bytes()).hexdigest(), trace


@pytest.fixture
def shelf_only(archive, monkeypatch, tmp_path):
    require_package("pip")  # imported here, it would clear the distutils that Inductor loaded
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive[0].parent))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("shelf_only")
def test_an_archive_is_fetched_without_running_its_setup(archive):
    file, digest, trace = archive
    kept = data.source_archive("planish-probe", "1.0", digest)
    assert kept.read_bytes() == file.read_bytes()
    assert not trace.exists()
    file.unlink()
    assert data.source_archive("planish-probe", "1.0", digest) == kept


@pytest.mark.usefixtures("shelf_only")
def test_another_file_under_the_same_name_is_refused(archive):
    with pytest.raises(DataError, match="HASH") as caught:
        data.source_archive("planish-probe", "1.0", "0" * 64)
    assert "planish.models.data" in caught.value.hint
    assert not archive[2].exists()


def test_package_files():
    assert data.package_file("pip", "zoo", "pip/__init__.py").is_file()
    with pytest.raises(DataError, match="no file"):
        data.package_file("pip", "zoo", "pip/nothing")
    with pytest.raises(MissingExtra, match=r"planish\[zoo\]"):
        data.package_file("planish-no-such-package", "zoo", "x")


@pytest.mark.usefixtures("rated")
def test_the_splits_share_no_sentence():
    splits = {name: {row.text.lower() for row in sentences.split(name)} for name in sentences.COUNTS}
    assert {name: len(rows) for name, rows in splits.items()} == sentences.COUNTS
    assert len(set.union(*splits.values())) == sum(sentences.COUNTS.values())
    training = {row.text.lower() for row in sentences.split("training")}
    assert len(training) > 20_000
    assert not training & set.union(*splits.values())
    assert {row.genre for row in sentences.split("evaluation")} == set(sentences.GENRES)
    assert {row.genre for row in sentences.split("probe_test")} == {"movieReviewSnippets"}


def test_sentences_are_real_and_rated(rated):
    assert len(rated) > 23_500
    assert all(-4 <= row.rating <= 4 and row.text for row in rated)


def test_lee_is_whole_and_gensim_stays_unimported():
    require("gensim")
    texts, similarity = sentences.lee()
    assert len(texts) == 50
    np.testing.assert_array_equal(similarity, similarity.T)
    np.testing.assert_array_equal(np.diag(similarity), 1)
    code = "import sys; from planish.models import sentences as s; s.lee(); sys.exit('gensim' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
