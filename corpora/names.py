"""People's names, where a recogniser is installed: no shape tells them from other words.

spaCy is optional (`pip install 'sweep-orchestrator[privacy]'`, then one of its English models); it is
imported when the first text is looked at, and whoever shows what was found says whether names were
looked for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

_MODELS = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm")
"""spaCy's English models, the most accurate first."""

_PIECE_CHARACTERS = 50_000
"""Text that is looked at together; spaCy takes memory by the length."""

HOW_TO_GET = "pip install 'sweep-orchestrator[privacy]' && python -m spacy download en_core_web_sm"


@dataclass(frozen=True)
class NameRecogniser:
    """Something that finds people's names."""

    name: str
    """The model's name and version."""
    pipeline: Any

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Begin and end of every name.

        Args:
            text: any text; a long one is looked at in pieces that end at a space.
        """
        start = 0
        while start < len(text):
            end = _end_of_piece(text, start)
            for entity in self.pipeline(text[start:end]).ents:
                if entity.label_ == "PERSON":
                    yield start + entity.start_char, start + entity.end_char
            start = end


def installed_model() -> str | None:
    """The model that would be used; None where spaCy or its English models are not installed."""
    if importlib.util.find_spec("spacy") is None:
        return None
    return next((name for name in _MODELS if importlib.util.find_spec(name) is not None), None)


@cache
def name_recogniser() -> NameRecogniser | None:
    """The recogniser, loaded once; None where none is installed."""
    model = installed_model()
    if model is None:
        return None
    import spacy

    # Tags and syntax are not needed to find names.
    unneeded = ["tagger", "parser", "lemmatizer", "attribute_ruler"]
    pipeline = spacy.load(model, exclude=unneeded)
    return NameRecogniser(f"{model} {pipeline.meta['version']}", pipeline)


def names_note() -> str:
    """Whether names are looked for, in words."""
    model = installed_model()
    if model is not None:
        return f"names are looked for ({model})"
    return "names are not looked for (no recogniser is installed)"


def _end_of_piece(text: str, start: int) -> int:
    end = start + _PIECE_CHARACTERS
    if end >= len(text):
        return len(text)
    space = text.rfind(" ", start, end)
    return space + 1 if space > start else end
