"""What ChatMGL's published evaluation fixes, whatever the decoding settings say."""

from __future__ import annotations

from typing import Final

CHATMGL_MAX_NEW_TOKENS: Final = 150
"""Longest reply in tokens."""
CHATMGL_TEST_PAIRS: Final = 60
"""ChatMGL's authors scored the first 60 test prompts."""
CHATMGL_LENGTH_PENALTY: Final = 0.0
