"""E-mail addresses, sites and phone numbers as people say them, or write them to hide them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

_ENDINGS = (
    "com|org|net|edu|gov|info|biz|io|me|co|uk|us|ca|au|nz|ie|de|fr|es|it|nl|be|ch|at|in|eu|se|no"
)
_PROVIDERS = (
    "gmail|googlemail|yahoo|ymail|hotmail|outlook|icloud|aol|protonmail|proton|gmx|live|msn|mail"
)
_DOT = r"(?:[ ]?[(\[{]dot[)\]}][ ]?|[ ]dot[ ]|[ ]?[.](?=\w))"
_SAID_DOT = r"(?:[ ]?[(\[{]dot[)\]}][ ]?|[ ]dot[ ])"
_LABEL = r"[a-z0-9-]{1,63}"
_AT = re.compile(r"[ ]?[(\[{<]at[)\]}>][ ]?|[ ]at[ ]|[ ]@[ ]?|@[ ]", re.IGNORECASE)
_DOMAIN = re.compile(
    rf"{_LABEL}(?:{_DOT}{_LABEL}){{0,3}}?{_DOT}(?:{_ENDINGS})(?![\w-])", re.IGNORECASE
)
# After a plain `at`, which is an ordinary word, the dots have to be said, or the provider known.
_SAID_DOMAIN = re.compile(
    rf"(?:{_LABEL}(?:{_SAID_DOT}{_LABEL}){{0,3}}?{_SAID_DOT}(?:{_ENDINGS})"
    rf"|(?:{_PROVIDERS}){_DOT}(?:com|net|org|me|co{_DOT}uk|de|fr))(?![\w-])",
    re.IGNORECASE,
)
_SITE = re.compile(
    rf"[ ]dot[ ](?:com|org|net|edu|gov|co[ ]dot[ ]uk)\b(?:[ ]slash[ ]{_LABEL}){{0,3}}",
    re.IGNORECASE,
)
_JOINTS = frozenset({"dot", "(dot)", "[dot]", "underscore", "dash", "hyphen", "plus", "_", "."})
_LOCAL = re.compile(r"[\w.%+-]{1,64}")
_LONGEST_LOCAL = 120
_MOST_JOINTS = 4

_VALUES = {
    word: value
    for value, words in enumerate(
        ("zero oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    )
    for word in words.split()
}
_DIGIT = rf"(?:(?:double|triple)[ ])?(?:{'|'.join(_VALUES)}|[0-9])"
_FEWEST_DIGITS = 7
_DIGITS = re.compile(rf"\b{_DIGIT}(?:[ ,.-]{{1,3}}{_DIGIT}){{4,30}}+\b", re.IGNORECASE)

SpokenKind = Literal["email", "url", "phone"]


def find_spoken(text: str) -> Iterator[tuple[int, int, SpokenKind]]:
    """Begin, end and kind of everything that is spoken or disguised.

    Args:
        text: any text.
    """
    yield from _find_emails(text)
    yield from _find_sites(text)
    yield from _find_digits(text)


def _find_emails(text: str) -> Iterator[tuple[int, int, SpokenKind]]:
    done = 0
    for at in _AT.finditer(text):
        if at.start() < done:
            continue
        plain = at.group().strip().casefold() == "at"
        domain = (_SAID_DOMAIN if plain else _DOMAIN).match(text, at.end())
        start = _start_of_local(text, done, at.start()) if domain else None
        if domain and start is not None:
            yield start, domain.end(), "email"
            done = domain.end()


def _find_sites(text: str) -> Iterator[tuple[int, int, SpokenKind]]:
    done = 0
    for ending in _SITE.finditer(text):
        start = _start_of_local(text, done, ending.start())
        if start is not None:
            yield start, ending.end(), "url"
        done = ending.end()


def _start_of_local(text: str, least: int, end: int) -> int | None:
    """Where the words before an `at` begin that belong to the address; None where none does.

    A word belongs to it if it stands next to it, or on the other side of a `dot`.
    """
    begin = max(least, end - _LONGEST_LOCAL)
    words = re.split(" ", text[begin:end])
    local = words.pop()
    if not _LOCAL.fullmatch(local) or local.casefold() in _JOINTS:
        return None
    start = end - len(local)
    for _ in range(_MOST_JOINTS):
        if len(words) < 2 or words[-1].casefold() not in _JOINTS:
            break
        if not _LOCAL.fullmatch(words[-2]) or words[-2].casefold() in _JOINTS:
            break
        start -= len(words[-1]) + len(words[-2]) + 2
        del words[-2:]
    return start


def _find_digits(text: str) -> Iterator[tuple[int, int, SpokenKind]]:
    for match in _DIGITS.finditer(text):
        said = _said_digits(match.group())
        if said is not None and _is_number(said):
            yield match.start(), match.end(), "phone"


def _said_digits(written: str) -> list[int] | None:
    """The digits that are meant; None where all are written as figures, which others look at."""
    digits: list[int] = []
    times, words = 1, 0
    for word in re.findall(r"[a-z]+|[0-9]", written.casefold()):
        if word in ("double", "triple"):
            times = 2 if word == "double" else 3
            continue
        words += word in _VALUES
        digits += [_VALUES[word] if word in _VALUES else int(word)] * times
        times = 1
    return digits if words else None


def _is_number(digits: list[int]) -> bool:
    """Whether digits are dialled rather than counted: people count up, down, and over again."""
    if not _FEWEST_DIGITS <= len(digits) <= 16 or len(set(digits)) < 3:
        return False
    counted = sum(abs(after - before) == 1 for before, after in pairwise(digits))
    return counted * 2 <= len(digits) - 1
