from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.trainers.short_memory import Memory
from trainers import classifier
from trainers.classifier import classify_all, load_classifier
from trainers.errors import ModelError, StoppedError

TEXTS = [(f"Why {'so ' * n}tired?", f"Stay in bed {n}.") for n in (3, 0, 5, 1, 4, 2)]
LENGTH = 48


@pytest.fixture(scope="module")
def loaded(tiny_gpt2: Path) -> tuple[Any, Any]:
    return load_classifier(tiny_gpt2, 0)


@pytest.fixture
def outputs(loaded: tuple[Any, Any]) -> list[float]:
    return classify_all(*loaded, TEXTS, LENGTH)


def test_outputs_do_not_depend_on_their_neighbours(
    loaded: tuple[Any, Any], outputs: list[float]
) -> None:
    assert len(set(outputs)) == len(TEXTS)
    alone = [classify_all(*loaded, [text], LENGTH)[0] for text in TEXTS]
    assert alone == pytest.approx(outputs, abs=1e-5)


def test_the_head_is_the_seeds(tiny_gpt2: Path, outputs: list[float]) -> None:
    assert classify_all(*load_classifier(tiny_gpt2, 0), TEXTS, LENGTH) == outputs
    assert classify_all(*load_classifier(tiny_gpt2, 1), TEXTS, LENGTH) != outputs


def test_memory_that_is_short(
    loaded: tuple[Any, Any], outputs: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        memory = Memory(patch, classifier, 2)
        assert classify_all(*loaded, TEXTS, LENGTH) == pytest.approx(outputs, abs=1e-5)
    assert memory.seen == [6, 3, 1, 1, 1, 1, 1, 1]
    Memory(monkeypatch, classifier, 0)
    with pytest.raises(torch.OutOfMemoryError):
        classify_all(*loaded, TEXTS, LENGTH)


def test_another_error_is_not_tried_again(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def broken(*given: Any) -> torch.Tensor:
        asked.append(given)
        raise RuntimeError("expected scalar type Float but found Half")

    monkeypatch.setattr(classifier, "classify", broken)
    with pytest.raises(RuntimeError, match="scalar type"):
        classify_all(*loaded, TEXTS, LENGTH)
    assert len(asked) == 1


def test_stopping(loaded: tuple[Any, Any]) -> None:
    with pytest.raises(StoppedError):
        classify_all(*loaded, TEXTS, LENGTH, should_stop=lambda: True)


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no sequence classifier can be made of it"):
        load_classifier(tmp_path, 0)
