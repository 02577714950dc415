"""What every hostile input has to come to: refused or unharmed, told in a line, and nothing done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.flow.input_errors import refusals
from tests.unit.orchestrator.command_line import Finished

CANARY = "canary"
"""File that a payload makes where it is run; commands run in the folder it would lie in."""


class Bomb:
    """Pickled, it makes the canary when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (f"touch {CANARY}",)


def check_refused(done: Finished, *says: str) -> None:
    """As any mistake is, and in not too many lines, with nothing that a terminal would obey."""
    refusals.check_refused(done, *says)
    check_printable(done)
    assert all(line.startswith("error: ") for line in done.err.splitlines()), done.err
    assert len(done.err) < 20_000


def check_printable(done: Finished) -> None:
    """No traceback, and nothing on the screen that is not text."""
    both = done.out + done.err
    assert "Traceback" not in both, both
    strange = {c for c in both if c != "\n" and not c.isprintable()}
    assert not strange, f"{strange!r} in\n{both!r}"


@contextmanager
def nothing_written(folder: Path) -> Iterator[None]:
    """See that files are the same before and after, the canary included, which is not there."""
    before = _files(folder)
    yield
    assert _files(folder) == before
    assert not (folder / CANARY).exists()


def _files(folder: Path) -> dict[Path, bytes | None]:
    return {
        file: file.read_bytes() if file.is_file() and file.stat().st_size < 1 << 24 else None
        for file in sorted(folder.rglob("*"))
        if "cache" not in file.relative_to(folder).parts
    }
