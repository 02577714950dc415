"""Where a text holds something that could identify somebody, found by its shape.

The shapes are narrow on purpose: dates, ages, years, sums of money, doses and clock times are none.
Every repetition is bounded or possessive, so that the time is linear in the text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from corpora.addresses import find_addresses
from corpora.spoken import find_spoken

Identifier = Literal["email", "phone", "address", "card", "id", "url", "ip", "name"]
IDENTIFIERS: tuple[Identifier, ...] = (
    "email",
    "phone",
    "address",
    "card",
    "id",
    "url",
    "ip",
    "name",
)


class Span(NamedTuple):
    """A part of a text, and what it looks like."""

    start: int
    end: int
    kind: Identifier


_URL = re.compile(r"""(?:https?|ftp)://[^\s<>"']{1,2000}+|www\.[^\s<>"']{1,2000}+""", re.IGNORECASE)
_EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}+@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}")
_SITE = re.compile(
    r"""
    [.](?:com|org|net|edu|gov|(?:co|org|ac|gov|nhs)[.]uk)\b (?![\w-]) (?:/[^\s<>"']{0,2000}+)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SITE_HEAD = re.compile(r"(?<![\w.-])[a-z0-9-]{2,63}(?:[.][a-z0-9-]{1,63}){0,3}\Z", re.IGNORECASE)
_LONGEST_HEAD = 200
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_IPV4 = re.compile(rf"(?<![\w.]){_OCTET}(?:\.{_OCTET}){{3}}(?!\w|\.[0-9])")
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f]{1,4}(?:::?[0-9A-Fa-f]{1,4}){2,7}(?![\w:])")
_CODE = re.compile(r"[A-Z](?<![\w-][A-Z])[A-Z]{0,3}-?[0-9]{6,}+[A-Z]?(?!\w)")
_IBAN = re.compile(
    r"[A-Z](?<!\w[A-Z])[A-Z][0-9]{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,4})?(?!\w)"
)
_NATIONAL_INSURANCE = re.compile(r"[A-Z](?<!\w[A-Z])[A-Z](?:[ ]?[0-9]{2}){3}[ ]?[A-D](?!\w)")
_OWNERS = (
    "patient|case|client|member|account|policy|passport|licence|license|student|employee|insurance"
    "|claim|record|reference|nhs|hospital|badge|security"
)
# In three spellings rather than regardless of case, so that `re` can skip to their first letters.
_NUMBERED = re.compile(
    rf"""
    (?: (?:{"|".join(f"{word}|{word.capitalize()}|{word.upper()}" for word in _OWNERS.split("|"))})
        [ ](?:[Nn]umber|NUMBER|[Nn]o[.]?|[Ii][Dd]|\#)
      | mrn|MRN|ssn|SSN )
    (?:[ ](?:is|was)|:)?[ ]*\#?[ ]?(?P<number>[A-Z]{{0,3}}[0-9][0-9-]{{3,20}}[0-9A-Z]?)(?!\w)
    """,
    re.VERBOSE,
)
_DIGITS = re.compile(r"(?:\+|\()?[0-9](?:(?:\)[ ]?|[ ]?\(|[ .-])?[0-9]){6,23}(?!\w)|[0-9]{9,}+")
_UNIT = re.compile(
    r"[ ]?(?:bytes?|[kKMGT]i?B|B|tokens?|parameters|params|steps?|calories|kcal|dollars?|euros?"
    r"|pounds?|yen|rupees|people|years?|percent|%|milliseconds|seconds|ms|s)\b"
)
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")
_DATE = re.compile(
    r"(?:(?:19|20)[0-9]{2}([-.])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}([-.])[0-9]{1,2}\2(?:19|20)[0-9]{2})[ ]"
)
_END_OF_SENTENCE = ".,;:!?)]"


def find_spans(text: str) -> tuple[Span, ...]:
    """Everything found, in order and without overlaps; names are not among it.

    Args:
        text: any text.
    """
    found: list[Span] = []
    for may, find in _FINDERS:
        if may(text):
            found.extend(find(text))
    found += [Span(start, end, "address") for start, end in find_addresses(text)]
    found += [Span(start, end, kind) for start, end, kind in find_spoken(text)]
    return merge_spans(found)


def merge_spans(found: list[Span]) -> tuple[Span, ...]:
    """Spans in order; those that overlap become one, of the kind that begins first.

    Args:
        found: in any order; of spans that begin together the longest gives the kind.
    """
    merged: list[Span] = []
    for span in sorted(found, key=lambda span: (span.start, -span.end)):
        if merged and span.start < merged[-1].end:
            last = merged[-1]
            merged[-1] = Span(last.start, max(last.end, span.end), last.kind)
        else:
            merged.append(span)
    return tuple(merged)


def _urls(text: str) -> Iterator[Span]:
    for match in _URL.finditer(text):
        start, whole = match.start(), match.group()
        address = whole.rstrip(_END_OF_SENTENCE)
        if text[start - 1 : start].isalnum() or len(address) < len("www.a"):
            continue
        yield Span(start, start + len(address), "url")


def _emails(text: str) -> Iterator[Span]:
    for match in _EMAIL.finditer(text):
        yield Span(match.start(), match.end(), "email")


def _sites(text: str) -> Iterator[Span]:
    """Sites named without `https://`: found from their ending, which is rare, backwards."""
    done = 0
    for match in _SITE.finditer(text):
        before = text[max(done, match.start() - _LONGEST_HEAD) : match.start()]
        # The last word before the ending; looked at alone, so that little is tried twice.
        words = before.rsplit(None, 1)
        head = _SITE_HEAD.search(words[-1]) if words and not before[-1].isspace() else None
        if head:
            start = match.start() - len(head.group())
            end = match.start() + len(match.group().rstrip(_END_OF_SENTENCE))
            yield Span(start, end, "url")
        done = match.end()


def _ips(text: str) -> Iterator[Span]:
    for match in (*_IPV4.finditer(text), *_IPV6.finditer(text)):
        written = match.group()
        try:
            address = ipaddress.ip_address(written)
        except ValueError:
            continue  # As `12:30:45` or `1.2.3.04`.
        if not (address.is_loopback or address.is_unspecified):  # Those are everybody's.
            yield Span(match.start(), match.end(), "ip")


def _codes(text: str) -> Iterator[Span]:
    for pattern in (_CODE, _NATIONAL_INSURANCE):
        for match in pattern.finditer(text):
            yield Span(match.start(), match.end(), "id")
    for match in _IBAN.finditer(text):
        # What follows in capitals may have been taken along: the check digits say where it ends.
        words = match.group().split(" ")
        while words and not _passes_mod_97("".join(words)):
            words.pop()
        if words:
            yield Span(match.start(), match.start() + len(" ".join(words)), "id")


def _numbered(text: str) -> Iterator[Span]:
    """Numbers that are said to be somebody's: `my account number is 48213`."""
    for match in _NUMBERED.finditer(text):
        yield Span(match.start("number"), match.end("number"), "id")


def _numbers(text: str) -> Iterator[Span]:
    position = 0
    while match := _DIGITS.search(text, position):
        start, written = match.start(), match.group()
        kind = None
        if not _is_part_of_word(text, start, match.end()) and not _is_amount(text, match):
            kind = _kind_of_digits(written)
        if kind is not None:
            yield Span(start, match.end(), kind)
            position = match.end()
        elif " " in written and written.strip("0123456789 "):
            # Figures and then a number of another form: each is looked at by itself.
            position = start + written.index(" ") + 1
        else:
            position = match.end()


def _is_part_of_word(text: str, start: int, end: int) -> bool:
    before, after = text[max(start - 2, 0) : start], text[end : end + 1]
    if after == "-" and text[end + 1 : end + 2].isalpha():
        return True  # As in a UUID.
    if before.endswith("."):
        return before[0].isdigit()  # A fraction; else a sentence that ends without a space.
    return any(beside == "_" or beside.isalnum() for beside in (before[-1:], after))


def _is_amount(text: str, match: re.Match[str]) -> bool:
    """Whether a figure is of money or of a unit."""
    before = text[max(match.start() - 2, 0) : match.start()].rstrip()
    return before.endswith(("$", "£", "€")) or _UNIT.match(text, match.end()) is not None


def _kind_of_digits(written: str) -> Identifier | None:
    """A card or identity number, a phone number, or just figures (None)."""
    written = _DATE.sub("", written, count=1)  # And what stands after a date, by itself.
    groups = re.findall("[0-9]+", written)
    marks = set(re.sub("[0-9]", "", written))
    lengths = [len(group) for group in groups]
    digits = "".join(groups)
    if written.startswith("+"):
        return "phone" if 8 <= len(digits) <= 15 else "id"
    if 13 <= len(digits) <= 19 and min(lengths) >= 3 and digits[0] in "23456":
        if passes_luhn(digits):
            return "card"
        if lengths == [4, 4, 4, 4]:
            return "id"
    if len(groups) <= 1:
        if len(digits) < 9:
            return None
        return "phone" if len(digits) == 10 or digits.startswith("0") else "id"
    if all(_YEAR.fullmatch(group) for group in groups) or _is_date(lengths):
        return None
    if lengths == [3, 2, 4]:
        return "id"
    if lengths == [3, 3, 4] and marks <= {" ", "-"} and _passes_mod_11(digits):
        return "id"
    return "phone" if _is_phone(lengths, groups, marks) else None


def _is_phone(lengths: list[int], groups: list[str], marks: set[str]) -> bool:
    size, trunk = sum(lengths), groups[0].startswith("0") or "(" in marks
    if marks == {" "}:
        # Figures also stand in rows: only lengths that phone numbers have.
        ends_like_phone = size in (10, 11) and lengths[-1] == 4 and lengths[0] <= 3
        years = any(_YEAR.fullmatch(group) for group in groups[:-1])
        return (trunk and 9 <= size <= 15) or (ends_like_phone and not years)
    if len(groups) == 2:
        return lengths == [3, 4] or (trunk and size >= 9 and marks != {"."})  # No fraction.
    thousands = set(lengths[1:]) == {3}
    return size <= 15 and (trunk or (lengths[-1] >= 3 and not thousands))


def _is_date(lengths: list[int]) -> bool:
    """Whether groups of these lengths can be day, month and year."""
    return len(lengths) == 3 and (
        (lengths[0] == 4 and max(lengths[1:]) <= 2) or (lengths[2] == 4 and max(lengths[:2]) <= 2)
    )


def passes_luhn(digits: str) -> bool:
    """Whether the check digit is right, as on every payment card (ISO/IEC 7812-1)."""
    total = 0
    for index, digit in enumerate(map(int, reversed(digits))):
        doubled = digit * (1 + index % 2)
        total += doubled - 9 * (doubled > 9)
    return total % 10 == 0


def _passes_mod_11(digits: str) -> bool:
    """Whether the check digit is an NHS number's."""
    weighted = sum(int(digit) * (10 - index) for index, digit in enumerate(digits[:9]))
    return (11 - weighted % 11) % 11 == int(digits[9])


def _passes_mod_97(code: str) -> bool:
    """Whether the check digits are an IBAN's (ISO 7064)."""
    if not 15 <= len(code) <= 34:
        return False
    return int("".join(str(int(character, 36)) for character in code[4:] + code[:4])) % 97 == 1


_ANY_DIGIT = re.compile("[0-9]")

_Finder = tuple[Callable[[str], object], Callable[[str], Iterator[Span]]]
_FINDERS: tuple[_Finder, ...] = (
    (lambda text: "@" in text, _emails),
    (lambda text: "://" in text or "www." in text.lower(), _urls),
    (lambda text: "." in text, _sites),
    (lambda text: text.count(".") > 2 or text.count(":") > 1, _ips),
    (_ANY_DIGIT.search, _codes),
    (_ANY_DIGIT.search, _numbered),
    (_ANY_DIGIT.search, _numbers),
)
"""What to look for, each behind a cheap test of whether the text can hold any."""
