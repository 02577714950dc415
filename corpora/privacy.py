"""The privacy gate: what of a text may be logged or shown.

Training and scoring read texts as they are; everything that leaves a sweep's own files (MLflow, the
report, messages) passes here. Most identifiers are found by their shape (`corpora/identifiers.py`),
names only where a recogniser is installed (`corpora/names.py`), so no text that passed is certain to
be anonymous.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, get_args

from corpora.identifiers import Identifier, Span, find_spans, merge_spans
from corpora.names import name_recogniser, names_note
from search_spaces.spec import CorpusSpec, Privacy

RULES = 2
"""Raised whenever the gate finds more or less: what was logged under other rules is logged again."""

_STRICTEST_FIRST: tuple[Privacy, ...] = ("drop", "redact", "off")
_REMEMBERED_TEXTS = 4096


def find(text: str, *, names: bool = True) -> tuple[Span, ...]:
    """Everything in a text that could identify somebody, in order.

    Args:
        text: any text.
        names: whether names are looked for too, where a recogniser is installed.
    """
    return _find(text, names)


# A sweep's trials share their prompts and references, at every beam width.
@lru_cache(maxsize=_REMEMBERED_TEXTS)
def _find(text: str, names: bool) -> tuple[Span, ...]:
    found = find_spans(text)
    if not names:
        return found
    recogniser = name_recogniser()
    if recogniser is None:
        return found
    people = [Span(start, end, "name") for start, end in recogniser.find(text)]
    return merge_spans([*found, *people])


def redact(text: str, *, names: bool = True) -> str:
    """The text with `[EMAIL]`, `[PHONE]`, `[NAME]` and so on for what identifies.

    Args:
        text: any text.
        names: as for `find`.
    """
    parts: list[str] = []
    done = 0
    for start, end, kind in find(text, names=names):
        parts += [text[done:start], f"[{kind.upper()}]"]
        done = end
    return "".join(parts) + text[done:]


def find_identifiers(text: str) -> Counter[Identifier]:
    """How many of each kind the text holds; kinds that it does not hold are absent."""
    return Counter(span.kind for span in find(text))


def is_dropped(texts: Iterable[str], privacy: Privacy) -> bool:
    """Whether texts that belong together are left out of what is logged and shown.

    Args:
        texts: e.g. a prompt and a reply.
        privacy: the corpus's setting.
    """
    return privacy == "drop" and any(find(text) for text in texts)


def guard(text: str, privacy: Privacy) -> str:
    """A text or message as it may be logged or shown.

    Args:
        text: one that may quote a corpus or a reply, such as a traceback.
        privacy: the corpus's setting. Under `drop` a line that holds an identifier goes whole, and
            says so: what else stood in it may be about the same person.
    """
    match privacy:
        case "off":
            return text
        case "redact":
            return redact(text)
        case "drop":
            return "\n".join(_kept_line(line) for line in text.split("\n"))


def _kept_line(line: str) -> str:
    kinds = dict.fromkeys(span.kind for span in find(line))
    return f"[line left out: it holds {', '.join(kinds)}]" if kinds else line


def privacy_of(spec: Mapping[str, Any]) -> Privacy:
    """The setting in a trial's specification as plain data; the default where it has none.

    Args:
        spec: as `spec_to_dict` writes it, or as an older program did.
    """
    corpus = spec.get("corpus")
    written = corpus.get("privacy") if isinstance(corpus, Mapping) else None
    return next((name for name in get_args(Privacy) if name == written), CorpusSpec().privacy)


def strictest(settings: Iterable[Privacy]) -> Privacy:
    """The strictest of several settings; the default where there are none."""
    given = set(settings)
    return next((name for name in _STRICTEST_FIRST if name in given), CorpusSpec().privacy)


def gate_mark(privacy: Privacy) -> str:
    """Text that is equal for texts that passed the same gate: setting, rules and recogniser.

    Args:
        privacy: the corpus's setting.
    """
    return privacy if privacy == "off" else f"{privacy}, rules {RULES}, {names_note()}"


def describe(privacy: Privacy) -> str:
    """What a setting did to the texts beside it, as a reader has to know it.

    Args:
        privacy: the corpus's setting.
    """
    match privacy:
        case "off":
            return (
                "The privacy gate is off: texts stand as they are, with whatever personal data "
                "they hold."
            )
        case "redact":
            done = "are masked"
        case "drop":
            done = "leave the whole text out"
    return (
        "E-mail and street addresses, phone, card and identity numbers, links and IP addresses "
        f"{done}; {names_note()}."
    )
