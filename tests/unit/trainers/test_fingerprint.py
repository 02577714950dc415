from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from trainers import fingerprint
from trainers.fingerprint import folder_fingerprint
from trainers.storage import cache_folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_content_alone_counts(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "elsewhere" / "copy")
    os.utime(copy / "config.json", ns=(1, 1))
    (copy / "README.md").write_text("a card")
    (copy / "training_args.bin").write_bytes(b"x")
    (copy / "onnx").mkdir()
    assert folder_fingerprint(copy) == folder_fingerprint(model)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "merges.txt", "new.model"])
def test_every_counted_file_counts(model: Path, name: str) -> None:
    before = folder_fingerprint(model)
    (model / name).write_bytes(b"another content")
    assert folder_fingerprint(model) != before


def test_names_count(model: Path) -> None:
    before = folder_fingerprint(model)
    (model / "config.json").rename(model / "other.json")
    assert folder_fingerprint(model) != before


def test_files_are_read_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    sha256 = fingerprint.file_sha256

    def counted(file: Path) -> str:
        read.append(file.name)
        return sha256(file)

    monkeypatch.setattr(fingerprint, "file_sha256", counted)
    before = folder_fingerprint(model)
    assert read == ["config.json", "model.safetensors"]
    assert folder_fingerprint(model) == before
    assert len(read) == 2
    # As long as before, but written later; then as old as before, but longer.
    stat = (model / "config.json").stat()
    (model / "config.json").write_text("[]")
    os.utime(model / "config.json", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert folder_fingerprint(model) != before
    assert read[2:] == ["config.json"]
    (model / "config.json").write_text("[1]")
    os.utime(model / "config.json", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert folder_fingerprint(model) != before
    assert read[3:] == ["config.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe\x00"])
def test_a_broken_index_is_made_anew(model: Path, content: bytes) -> None:
    before = folder_fingerprint(model)
    index = cache_folder() / "fingerprints.json"
    good = index.read_bytes()
    index.write_bytes(content)
    assert folder_fingerprint(model) == before
    assert index.read_bytes() == good
    assert [file.name for file in cache_folder().iterdir()] == ["fingerprints.json"]
