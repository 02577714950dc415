"""The fingerprint of a model folder: equal files, equal fingerprint, wherever the folder lies."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from search_spaces.atomic import write_atomically
from trainers.storage import cache_folder

_BLOCK_BYTES = 1 << 22
_COUNTED_SUFFIXES = (".safetensors", ".bin", ".json", ".txt", ".model")
_NOT_COUNTED = ("README.md", "training_args.bin", "trainer_state.json")


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of a model's weights, configuration and tokenizer files.

    Each file's hash is kept in the cache by path, size and modification time, so that gigabytes
    are read once.

    Args:
        folder: a model folder as `save_pretrained` writes it.
    """
    index_file = cache_folder() / "fingerprints.json"
    index = _read_index(index_file)
    known = dict(index)
    total = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if not file.is_file() or file.suffix not in _COUNTED_SUFFIXES or file.name in _NOT_COUNTED:
            continue
        stat = file.stat()
        key = f"{file.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        digest = index.get(key) or file_sha256(file)
        index[key] = digest
        total.update(f"{file.name}\0{digest}\n".encode())
    if index != known:
        _write_index(index_file, index)
    return f"sha256:{total.hexdigest()}"


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Args:
        file: read in blocks, so its size does not matter.
    """
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _read_index(file: Path) -> dict[str, str]:
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # The index only saves time: without it, every file is hashed again.
    return {str(key): str(value) for key, value in index.items()} if isinstance(index, dict) else {}


def _write_index(file: Path, index: dict[str, str]) -> None:
    with contextlib.suppress(PermissionError):  # The index only saves time.
        write_atomically(file, json.dumps(index))
