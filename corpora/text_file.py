"""A file becomes text, or a problem that says what the file is instead."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from corpora.findings import Findings

_SIGNATURES = (
    (b"PK\x03\x04", "an Excel workbook or ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"%PDF", "a PDF document"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3", "an SQLite database"),
)
# UTF-32's little-endian mark begins with UTF-16's: the longer ones stand first.
_WIDE_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
MAX_FILE_BYTES = 256 << 20
MAX_LINE_BYTES = 16 << 20
"""More than a row of the longest cells, however they are written."""

_MARK = b"\xef\xbb\xbf"
_HEAD_BYTES = 4096
_CHUNK_BYTES = 1 << 20
_NOT_SPACE = re.compile(rb"[^\s]")


def read_text(path: Path, findings: Findings) -> str | None:
    """The file's text, without a byte-order mark, its line ends untouched.

    Args:
        path: an existing path.
        findings: gets what is wrong.

    Returns:
        The text; None where the file cannot be read as UTF-8 text or holds nothing.
    """
    file = str(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            # Looked at before it is opened: a pipe that nobody writes to would be waited for.
            findings.error(file, "", f"a corpus file must be a regular file, not {_what(mode)}")
            return None
        with path.open("rb") as stream:
            raw = _read(file, stream, findings)
        if raw is None:
            return None
    except PermissionError:
        findings.error(file, "", "the file must be readable, but permission is denied")
        return None
    except OSError as error:
        findings.error(file, "", f"the file cannot be read: {error.strerror or error}")
        return None
    return _decode(file, raw, findings)


def _read(file: str, stream: BinaryIO, findings: Findings) -> bytearray | None:
    """All bytes of a file; None as soon as it is no text, or too large for one."""
    size = os.fstat(stream.fileno()).st_size
    raw = bytearray(stream.read(_HEAD_BYTES))
    if not _is_text(file, raw, findings):
        return None
    if size > MAX_FILE_BYTES:
        findings.error(
            file,
            "",
            f"a corpus file must have at most {MAX_FILE_BYTES >> 20} MiB: divide it",
            f"{size >> 20} MiB",
        )
        return None
    line, begins = 1 + raw.count(b"\n"), raw.rfind(b"\n") + 1
    while chunk := stream.read(_CHUNK_BYTES):
        start = len(raw)
        raw += chunk
        line += raw.count(b"\n", start)
        begins = max(raw.rfind(b"\n", start) + 1, begins)
        if len(raw) - begins > MAX_LINE_BYTES:
            findings.error(
                file, f"line {line}", f"a line must have at most {MAX_LINE_BYTES >> 20} MiB"
            )
            return None
    return raw


def _what(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")


def _is_text(file: str, head: bytearray, findings: Findings) -> bool:
    """Whether the file's first bytes may belong to text; settles large binary files early."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            findings.error(
                file, "byte 0", f"the file must be text, but this is {name}: export it as CSV"
            )
            return False
    for mark, encoding in _WIDE_MARKS:
        if head.startswith(mark):
            findings.error(
                file,
                "byte 0",
                f"the file must be UTF-8, but this is {encoding}: "
                f"convert it (`iconv -f {encoding} -t UTF-8`)",
            )
            return False
    return True


def _decode(file: str, raw: bytearray, findings: Findings) -> str | None:
    if not _NOT_SPACE.search(raw, len(_MARK) if raw.startswith(_MARK) else 0):
        findings.error(file, "", "the file must hold rows, but it is empty")
        return None
    if b"\x00" in raw:
        offset = raw.index(b"\x00")
        findings.error(
            file,
            _place(raw, offset),
            "text must hold no NUL bytes (a damaged file, or UTF-16 without its mark)",
            raw.count(b"\x00"),
        )
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Decoded again without the codec's own cut of the mark, so that the offset counts from 0.
        offset = _first_bad_byte(raw)
        findings.error(
            file,
            _place(raw, offset),
            f"the file must be UTF-8{_conversion_hint(raw)}",
            f"byte 0x{raw[offset]:02x}",
        )
        return None


def _first_bad_byte(raw: bytearray) -> int:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _conversion_hint(raw: bytearray) -> str:
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return ", and is not Windows-1252 either"
    return "; it reads as Windows-1252: convert it (`iconv -f WINDOWS-1252 -t UTF-8`)"


def _place(raw: bytearray, offset: int) -> str:
    line = raw.count(b"\n", 0, offset) + 1
    return f"line {line}, byte {offset}"
