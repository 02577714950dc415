"""What in a text could identify somebody: found by shape, so names and places are not.

The shapes are narrow on purpose: dates, ages, years, sums of money and doses stay as they are.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal

Identifier = Literal["email", "phone", "number", "url", "ip"]
IDENTIFIERS: tuple[Identifier, ...] = ("email", "phone", "number", "url", "ip")

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
# Every repetition is bounded and begins at a word boundary: the time is linear in the text.
_CANDIDATE = re.compile(
    rf"""
    (?P<url> \b https?:// [^\s<>"']{{1,2000}} (?<![.,;:!?)\]])
           | \b www\. [^\s<>"']{{1,2000}} (?<![.,;:!?)\]]) )
    | (?P<email> (?<![\w.%+-]) [\w.%+-]{{1,64}} @ [\w-]{{1,63}} (?:\.[\w-]{{1,63}}){{1,6}} )
    | (?P<site> (?<![\w.-]) [a-z0-9-]{{2,63}} (?:\.[a-z0-9-]{{1,63}}){{0,3}} \.(?:com|org|net|edu|gov)
                (?![\w-]) (?:/[^\s<>"']{{0,2000}} (?<![.,;:!?)\]]))? )
    | (?P<ip> (?<![\w.]) {_OCTET}(?:\.{_OCTET}){{3}} (?!\w|\.[0-9])
            | (?<![\w:]) [0-9A-Fa-f]{{1,4}}(?::[0-9A-Fa-f]{{1,4}}){{7}} (?![\w:]) )
    | (?P<code> (?<!\w) [A-Z]{{1,3}}[0-9]{{6,24}} (?!\w) )
    | (?P<digits> (?<![\w.]) (?:\+|\()? [0-9] (?:(?:\)[ ]?|[ ]?\(|[ .-])?[0-9]){{6,23}} (?!\w) )
    """,
    re.VERBOSE,
)
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")


def redact(text: str) -> str:
    """The text with `[EMAIL]`, `[PHONE]`, `[NUMBER]`, `[URL]` or `[IP]` for what identifies."""

    def replace(match: re.Match[str]) -> str:
        kind = _kind(match)
        return match.group() if kind is None else f"[{kind.upper()}]"

    return _CANDIDATE.sub(replace, text)


def find_identifiers(text: str) -> Counter[Identifier]:
    """How many of each kind the text holds; kinds that it does not hold are absent."""
    kinds = (_kind(match) for match in _CANDIDATE.finditer(text))
    return Counter(kind for kind in kinds if kind is not None)


def _kind(match: re.Match[str]) -> Identifier | None:
    match match.lastgroup:
        case "email":
            return "email"
        case "url" | "site":
            return "url"
        case "ip":
            return "ip"
        case "code":
            return "number"
        case _:
            return _kind_of_digits(match.group())


def _kind_of_digits(written: str) -> Identifier | None:
    """A card or identity number, a phone number, or just figures (None)."""
    groups = re.findall("[0-9]+", written)
    lengths = [len(group) for group in groups]
    digits = "".join(groups)
    marks = set(re.sub("[0-9]", "", written))
    if written.startswith("+"):
        return "phone" if 8 <= len(digits) <= 15 else "number"
    if 13 <= len(digits) <= 19 and _passes_luhn(digits):
        return "number"
    if len(groups) == 1:
        if len(digits) < 9:
            return None
        return "phone" if len(digits) == 10 or digits.startswith("0") else "number"
    if all(_YEAR.fullmatch(group) for group in groups) or _is_date(lengths):
        return None
    if lengths == [3, 2, 4]:
        return "number"
    trunk = digits.startswith("0") or "(" in marks
    if marks == {" "}:
        # Figures also stand in rows: only lengths that phone numbers have.
        ends_like_phone = len(digits) in (10, 11) and lengths[-1] == 4 and lengths[0] <= 3
        years = any(_YEAR.fullmatch(group) for group in groups[:-1])
        is_phone = (trunk and len(digits) >= 9) or (ends_like_phone and not years)
    elif len(groups) == 2:
        is_phone = lengths == [3, 4] or (trunk and len(digits) >= 9)
    else:
        thousands = set(lengths[1:]) == {3}
        is_phone = len(digits) <= 15 and (trunk or (lengths[-1] >= 3 and not thousands))
    return "phone" if is_phone else None


def _is_date(lengths: list[int]) -> bool:
    """Whether groups of these lengths can be day, month and year."""
    return len(lengths) == 3 and (
        (lengths[0] == 4 and max(lengths[1:]) <= 2) or (lengths[2] == 4 and max(lengths[:2]) <= 2)
    )


def _passes_luhn(digits: str) -> bool:
    """Whether the check digit is right, as on every payment card (ISO/IEC 7812-1)."""
    total = 0
    for index, digit in enumerate(map(int, reversed(digits))):
        doubled = digit * (1 + index % 2)
        total += doubled - 9 * (doubled > 9)
    return total % 10 == 0
