from __future__ import annotations

import shutil
import socket
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search_spaces.spec import SplitSpec
from trainers import hub, pretrained
from trainers.errors import ModelError
from trainers.fingerprint import folder_fingerprint
from trainers.hub import HubError, HubModel
from trainers.laptop_models import laptop_folder, laptop_recipe
from trainers.pretrained import check_model_folder, fetch_model, find_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPLIT = SplitSpec()


@pytest.fixture
def files(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a folder that looks like a model's."""

    def make(where: str) -> Path:
        folder = tmp_path / where
        folder.mkdir(parents=True)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (folder / name).write_text(name)
        return folder

    return make


@pytest.fixture
def snapshot(files: Callable[[str], Path], tmp_path: Path) -> Path:
    """A model in the hub's cache, as its client leaves it."""
    refs = tmp_path / "hub/models--owner--name/refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    return files(f"hub/models--owner--name/snapshots/{COMMIT}")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hub cannot be reached; returns who asked for it."""
    asked: list[str] = []

    def refuse(name: str) -> HubModel:
        asked.append(name)
        raise HubError("the hub cannot be reached (no route)")

    monkeypatch.setattr(pretrained, "describe", refuse)
    monkeypatch.setattr(pretrained, "download", refuse)
    return asked


def test_a_path_is_a_model(files: Callable[[str], Path], no_hub: list[str]) -> None:
    folder = files("mine")
    found = find_model("mine", SPLIT)
    assert found.folder == folder
    assert found.fingerprint == folder_fingerprint(folder)
    assert find_model(str(folder), SPLIT).fingerprint == found.fingerprint
    assert fetch_model("mine", SPLIT) == found
    assert not no_hub


def test_home_is_understood(
    files: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = files("mine")
    assert find_model("~/mine", SPLIT).folder == folder


def test_a_hand_put_model_is_found_by_name(
    files: Callable[[str], Path], no_hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = files("models/owner/name")
    assert find_model("owner/name", SPLIT).folder == folder
    monkeypatch.delenv("ORCHESTRATOR_MODELS")
    assert find_model("owner/name", SPLIT).folder == folder, "models/ is here too"
    assert not no_hub


def test_the_cache_of_the_hub_is_used(snapshot: Path, no_hub: list[str]) -> None:
    found = fetch_model("owner/name", SPLIT)
    assert (found.folder, found.fingerprint) == (snapshot, f"hub:{COMMIT}")
    assert not no_hub


def test_a_folder_goes_before_the_cache(
    snapshot: Path, files: Callable[[str], Path], no_hub: list[str]
) -> None:
    folder = files("models/owner/name")
    assert find_model("owner/name", SPLIT).folder == folder


def test_the_hub_is_asked_last(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch, files: Callable[[str], Path]
) -> None:
    shutil.rmtree(snapshot)
    monkeypatch.setattr(pretrained, "describe", lambda name: HubModel(name, COMMIT, ()))
    monkeypatch.setattr(pretrained, "download", lambda name: files(f"downloaded/{COMMIT}"))
    found = find_model("owner/name", SPLIT)
    assert (found.folder, found.fingerprint) == (None, f"hub:{COMMIT}")
    fetched = fetch_model("owner/name", SPLIT)
    assert fetched.fingerprint == found.fingerprint
    assert fetched.folder is not None


def test_what_was_fetched_must_be_whole(
    monkeypatch: pytest.MonkeyPatch, files: Callable[[str], Path]
) -> None:
    folder = files(f"downloaded/{COMMIT}")
    (folder / "tokenizer.json").unlink()
    monkeypatch.setattr(pretrained, "describe", lambda name: HubModel(name, COMMIT, ()))
    monkeypatch.setattr(pretrained, "download", lambda name: folder)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        fetch_model("owner/name", SPLIT)


@pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer.json"])
def test_an_interrupted_download_is_continued(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    (snapshot / lost).unlink()
    monkeypatch.setattr(pretrained, "describe", lambda name: HubModel(name, COMMIT, ()))
    assert find_model("owner/name", SPLIT).folder is None


def test_an_interrupted_download_without_a_hub_says_what_it_lacks(
    snapshot: Path, no_hub: list[str]
) -> None:
    (snapshot / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"must hold tokenizer\.json"):
        find_model("owner/name", SPLIT)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be reached"):
        find_model("owner/name", SPLIT)


def test_a_laptop_model_is_known_before_it_is_made() -> None:
    found = find_model("laptop-medium", SPLIT)
    assert (found.folder, found.fingerprint) == (None, laptop_recipe("laptop-medium", SPLIT))
    with pytest.raises(ModelError, match="must be made first"):
        fetch_model("laptop-medium", SPLIT)
    folder = laptop_folder("laptop-medium", SPLIT)
    folder.mkdir(parents=True)
    assert find_model("laptop-medium", SPLIT).folder is None
    (folder / "config.json").write_text("{}")
    assert fetch_model("laptop-medium", SPLIT).folder == folder


def test_every_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError) as caught:
        check_model_folder("empty", tmp_path / "empty")
    (problem,) = caught.value.problems
    assert problem.message == (
        "the folder must hold config.json, model.safetensors, "
        "tokenizer.json (or vocab.json and merges.txt)"
    )
    assert problem.value == "'empty'"
    assert problem.place == str(tmp_path / "empty")


def test_a_missing_folder_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "tiny-model").mkdir()
    with pytest.raises(ModelError) as caught:
        find_model("./tiny-modle", SPLIT)
    assert caught.value.problems[0].nearest == "tiny-model"
    for name in ("./nowhere/at/all", "~nobody-of-this-name/model"):
        with pytest.raises(ModelError, match="the folder must exist"):
            find_model(name, SPLIT)


def test_without_a_hub_the_user_is_told_what_to_do(no_hub: list[str], tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find_model("gpt2-medium", SPLIT)
    (problem,) = caught.value.problems
    for part in (
        "config.json",
        "model.safetensors",
        "no route",
        str(tmp_path / "models" / "gpt2-medium"),
        "hf download gpt2-medium",
        "--scale laptop",
    ):
        assert part in problem.message
    assert problem.nearest == ""
    with pytest.raises(ModelError) as caught:
        find_model("gpt2-meduim", SPLIT)
    assert caught.value.problems[0].nearest == "gpt2-medium"


@pytest.mark.parametrize("name", ["owner/name", "no such model", "one/two/three", "ünknown"])
@pytest.mark.parametrize(
    "refusal",
    [urllib.error.URLError("no route"), TimeoutError("timed out"), ConnectionResetError()],
)
def test_an_unreachable_hub_is_a_model_error(
    monkeypatch: pytest.MonkeyPatch, name: str, refusal: Exception
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise refusal

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(ModelError, match="cannot be reached"):
        fetch_model(name, SPLIT)


def test_a_silent_hub_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub, "_TIMEOUT_S", 0.2)
        began = time.monotonic()
        with pytest.raises(ModelError, match="timed out"):
            find_model("owner/name", SPLIT)
        assert time.monotonic() - began < 5
