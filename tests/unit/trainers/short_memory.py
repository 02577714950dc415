"""A device whose memory holds few texts, in place of the one that a classifier runs on."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from trainers.classifier import classify


class Memory:
    """So many texts are read at once, from the given forward pass on.

    Args:
        patch: puts it in place.
        module: whose forward passes it limits.
        texts: that fit.
        after: forward passes before it becomes so small.
    """

    def __init__(
        self, patch: pytest.MonkeyPatch, module: ModuleType, texts: int, after: int = 0
    ) -> None:
        self.seen: list[int] = []

        def limited(*given: Any) -> torch.Tensor:
            self.seen.append(len(given[2]))
            if len(self.seen) > after and len(given[2]) > texts:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return classify(*given)

        patch.setattr(module, "classify", limited)
