"""Files that are either whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def write_atomically(file: Path, content: str | bytes | Iterator[str]) -> None:
    """Write beside the file and put it in place in one step; a reader never sees half of it.

    Args:
        file: where the content goes; its folder is made where it is missing.
        content: text (written as UTF-8 with the line ends it has), whole or piece by piece, or
            bytes. Who may read the file is for the user's umask to say, as with every other file.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    pieces = [content] if isinstance(content, str | bytes) else content
    aside = file.parent / f".{file.name}.{secrets.token_hex(8)}"
    # Not tempfile's: those are for the owner alone, and the umask cannot be asked for in a thread.
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for piece in pieces:
                stream.write(piece.encode() if isinstance(piece, str) else piece)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, file)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
