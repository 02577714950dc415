"""Where somebody lives: streets with a number, boxes, flats, and postcodes with their country's form."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TYPES = (
    "Street|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Court|Ct|Boulevard|Blvd|Way|Place|Pl|Terrace|Close"
    "|Crescent|Square|Gardens|Grove|Parkway|Pkwy|Circle|Highway|Hwy|Mews|Row|Walk|Hill|Alley|Trail"
)
# Abbreviations that also stand before a name: `Dr Smith`, `St Mary`.
_TITLES = r"(?:Dr|St)(?![.]?[ ][A-Z])"
_PLAIN_TYPES = "street|avenue|road|lane|boulevard|crescent|terrace"
"""Types that are no other word, and so count in lower case too."""
_NOT_NAMES = (
    "the|a|an|of|on|in|at|to|by|for|from|and|or|my|our|his|her|their|your|this|that|down|up|off"
    "|across|along|along|over|more|next|same|side|way|lane|mile|miles|block|blocks|hour|hours|minute"
    "|minutes|day|days|week|weeks|month|months|year|years|people|cars|kids|times|am|pm|main|dead"
    "|busy|different|of|steps|houses|doors|bedroom|percent|dirt|country|back|side|long"
)
# Patterns begin with plain characters, which `re` skips to quickly; what may not stand before them is
# looked at behind the first.
_NUMBER = r"[0-9](?<![\w.,/:$£€-][0-9])[0-9]{0,4}[A-Za-z]?(?:-[0-9]{1,5})?,?"
_ONES = "one|two|three|four|five|six|seven|eight|nine"
_TEENS = "ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"


def _either_case(words: str) -> str:
    return f"{words}|{'|'.join(word.capitalize() for word in words.split('|'))}"


_SAID_NUMBER = rf"(?:{_either_case(f'{_TENS}|{_TEENS}|{_ONES}')})(?:[ -](?:{_either_case(_ONES)}))?"
_NAME = (
    r"(?:(?!(?:AM|PM|Mr|Mrs|Ms|I)\b)[A-Z][\w'\u2019.-]{0,30}|[0-9]{1,3}(?:st|nd|rd|th)|[NSEW][.]?)"
)
_STREET = re.compile(rf"{_NUMBER}[ ](?:{_NAME}[ ]){{1,4}}(?:(?:{_TYPES})\b|{_TITLES}\b)")
_STREET_IN_WORDS = re.compile(
    rf"(?:{_SAID_NUMBER})[ ](?:{_NAME}[ ]){{1,4}}(?:(?:{_TYPES})\b|{_TITLES}\b)"
)
_SAID_STREET = re.compile(
    rf"{_NUMBER}[ ](?:(?!(?:{_NOT_NAMES})\b)(?:[a-z][a-z'\u2019-]{{1,30}}|[0-9]{{1,3}}(?:st|nd|rd|th))[ ]){{1,2}}"
    rf"(?:{_PLAIN_TYPES})\b"
    rf"|{_NUMBER}[ ]main[ ](?:street|st)\b"
)
_BOX = re.compile(
    r"\b(?:P[.]?[ ]?O[.]?|post[ ]office)[ ]?box[ ](?:number[ ])?\#?[0-9]{1,7}\b", re.IGNORECASE
)
_FLAT = re.compile(
    r"\b(?:apt|apartment|suite|flat)[.]?[ ]?(?:number[ ])?\#?[ ]?[0-9]{1,4}[a-z]?\b"
    r"(?![ ](?:years?|months?|weeks?|days?|hours?|minutes?|times|people|bedrooms?|or|to|of)\b|[.:%][0-9])",
    re.IGNORECASE,
)
_UK_AREAS = (
    " AB AL B BA BB BD BH BL BN BR BS BT CA CB CF CH CM CO CR CT CV CW DA DD DE DG DH DL DN DT DY E"
    " EC EH EN EX FK FY G GL GU GY HA HD HG HP HR HS HU HX IG IM IP IV JE KA KT KW KY L LA LD LE LL"
    " LN LS LU M ME MK ML N NE NG NN NP NR NW OL OX PA PE PH PL PO PR RG RH RM S SA SE SG SK SL SM"
    " SN SO SP SR SS ST SW SY TA TD TF TN TQ TR TS TW UB W WA WC WD WF WN WR WS WV YO ZE "
)
_UK_POSTCODE = re.compile(
    r"[A-Za-z](?<![\w-][A-Za-z])[A-Za-z]?[0-9][0-9A-Za-z]?[ ]?[0-9][ABD-HJLNP-UW-Zabd-hjlnp-uw-z]{2}(?![\w-])"
)
_STATES = (
    "AL|AK|AZ|AR|CA|CO|CT|DE|DC|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ"
    "|NM|NY|NC|ND|OH|OK|OR|PA|RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY"
    "|Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia"
    "|Hawaii|Idaho|Illinois|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts"
    "|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska|Nevada|New[ ](?:Hampshire|Jersey"
    "|Mexico|York)|(?:North|South)[ ](?:Carolina|Dakota)|Ohio|Oklahoma|Oregon|Pennsylvania"
    "|Rhode[ ]Island|Tennessee|Texas|Utah|Vermont|(?:West[ ])?Virginia|Washington|Wisconsin|Wyoming"
)
_ZIP = re.compile(
    rf"(?<!\w)(?:{_STATES}),?[ ]{{1,2}}[0-9]{{5}}(?:-[0-9]{{4}})?(?![\w-])"
    r"|(?<![\w.-])[0-9]{5}-[0-9]{4}(?![\w-])"
)
_ANY_DIGIT = re.compile("[0-9]")
_TYPED = re.compile(rf"(?:{_TYPES}|{_PLAIN_TYPES}|Dr|St)\b")


def find_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Begin and end of everything that looks like an address, or a telling part of one.

    Args:
        text: any text.
    """
    patterns: list[re.Pattern[str]] = []
    if _TYPED.search(text):
        patterns += [_STREET, _SAID_STREET, _STREET_IN_WORDS]
    if _ANY_DIGIT.search(text):
        patterns += [_BOX, _FLAT, _ZIP]
        yield from _find_uk_postcodes(text)
    for pattern in patterns:
        for match in pattern.finditer(text):
            if not text[match.start() - 1 : match.start()].isalnum():
                yield match.span()


def _find_uk_postcodes(text: str) -> Iterator[tuple[int, int]]:
    for match in _UK_POSTCODE.finditer(text):
        code = match.group()
        area = code[: 2 if code[1].isalpha() else 1].upper()
        # Written together or in mixed case, other things look like it: `A4 5th`, `b12 6th`.
        told = code.isupper() or (" " in code and code.islower())
        if told and f" {area} " in _UK_AREAS:
            yield match.span()
