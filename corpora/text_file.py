"""A file becomes text, or a problem that says what the file is instead."""

from __future__ import annotations

import stat
from pathlib import Path

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
_HEAD_BYTES = 4096


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
        if not stat.S_ISREG(path.stat().st_mode):
            findings.error(file, "", "a corpus file must be a regular file")
            return None
        with path.open("rb") as stream:
            raw = stream.read(_HEAD_BYTES)
            if not _is_text(file, raw, findings):
                return None
            raw += stream.read()
    except PermissionError:
        findings.error(file, "", "the file must be readable, but permission is denied")
        return None
    except OSError as error:
        findings.error(file, "", f"the file cannot be read: {error.strerror or error}")
        return None
    return _decode(file, raw, findings)


def _is_text(file: str, head: bytes, findings: Findings) -> bool:
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


def _decode(file: str, raw: bytes, findings: Findings) -> str | None:
    if not raw.removeprefix(b"\xef\xbb\xbf").strip():
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


def _first_bad_byte(raw: bytes) -> int:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _conversion_hint(raw: bytes) -> str:
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return ", and is not Windows-1252 either"
    return "; it reads as Windows-1252: convert it (`iconv -f WINDOWS-1252 -t UTF-8`)"


def _place(raw: bytes, offset: int) -> str:
    line = raw.count(b"\n", 0, offset) + 1
    return f"line {line}, byte {offset}"
