from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from corpora.read import read_corpus
from corpora.splits import split_sessions
from search_spaces.spec import CorpusSpec, SplitSpec
from trainers import laptop_models
from trainers.laptop_models import (
    LAPTOP_MODELS,
    LaptopModel,
    laptop_folder,
    laptop_recipe,
    make_laptop_model,
)
from trainers.loading import load_model

SPLIT = SplitSpec()
SHRUNKEN = LaptopModel(n_layer=1, n_embd=16, n_head=2, epochs=1, vocab_size=300)
SCRIPT = """
from search_spaces.spec import SplitSpec
from trainers.laptop_models import LAPTOP_MODELS, LaptopModel, make_laptop_model

LAPTOP_MODELS["shrunken"] = LaptopModel(n_layer=1, n_embd=16, n_head=2, epochs=1, vocab_size=300)
print(make_laptop_model("shrunken", SplitSpec()))
"""


@pytest.fixture(autouse=True)
def shrunken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAPTOP_MODELS, "shrunken", SHRUNKEN)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def sessions_of(part: str) -> set[str]:
    sessions = [dialogue.session for dialogue in read_corpus(CorpusSpec()).dialogues]
    return {session for session, its in split_sessions(sessions, SPLIT).items() if its == part}


def test_the_recipe_depends_on_what_the_weights_are_made_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = laptop_recipe("shrunken", SPLIT)
    assert recipe == laptop_recipe("shrunken", SplitSpec(max_train_pairs=3, max_test_pairs=1))
    others = {
        laptop_recipe("shrunken", SplitSpec(split_seed=1)),
        laptop_recipe("shrunken", SplitSpec(train_fraction=0.7, valid_fraction=0.2)),
        laptop_recipe("laptop-medium", SPLIT),
        laptop_recipe("laptop-large", SPLIT),
    }
    monkeypatch.setitem(LAPTOP_MODELS, "shrunken", replace(SHRUNKEN, revision=2))
    others.add(laptop_recipe("shrunken", SPLIT))
    assert len(others - {recipe}) == 5


def test_it_is_made_once_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_laptop_model("shrunken", SPLIT)
    assert folder == laptop_folder("shrunken", SPLIT)
    assert [f.name for f in folder.parent.iterdir()] == [folder.name]
    model, tokenizer = load_model(folder)
    assert model.config.n_embd == 16
    assert len(tokenizer) == 300
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id
    monkeypatch.setattr(laptop_models, "train_tokenizer", None)
    assert make_laptop_model("shrunken", SPLIT) == folder


def test_it_is_made_the_same_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = contents(make_laptop_model("shrunken", SPLIT))
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "other"))
    assert contents(make_laptop_model("shrunken", SPLIT)) == first


def test_only_training_sessions_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    learn = laptop_models.train_tokenizer

    def watched(texts: list[str], shape: LaptopModel) -> Any:
        seen.extend(texts)
        return learn(texts, shape)

    monkeypatch.setattr(laptop_models, "train_tokenizer", watched)
    blocks = laptop_models._blocks
    monkeypatch.setattr(
        laptop_models,
        "_blocks",
        lambda texts, *rest: blocks(texts, *rest) if texts == seen else pytest.fail("other texts"),
    )
    make_laptop_model("shrunken", SPLIT)
    dialogues = {d.session: d.utterances for d in read_corpus(CorpusSpec()).dialogues}
    trained, held_out = sessions_of("train"), sessions_of("valid") | sessions_of("test")
    assert trained
    assert held_out
    assert sorted(seen) == sorted("\n".join(u.text for u in dialogues[s]) for s in trained)
    told = {utterance.text for session in trained for utterance in dialogues[session]}
    everything = "\n".join(seen)
    for session in held_out:
        for utterance in dialogues[session]:
            assert utterance.text in told or f"\n{utterance.text}\n" not in f"\n{everything}\n"


def test_who_comes_second_takes_the_first_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """While this process trains, another one (as far as names go) finishes the same model."""
    pretrain = laptop_models._pretrain
    others: list[Path] = []

    def overtaken(*arguments: Any) -> None:
        if not others:
            with monkeypatch.context() as elsewhere:
                elsewhere.setattr(os, "getpid", lambda: 1)
                others.append(Path())
                others[0] = make_laptop_model("shrunken", SPLIT)
                (others[0] / "mark").write_text("the other's")
        pretrain(*arguments)

    monkeypatch.setattr(laptop_models, "_pretrain", overtaken)
    folder = make_laptop_model("shrunken", SPLIT)
    assert [folder] == others
    assert (folder / "mark").is_file()
    assert [f.name for f in folder.parent.iterdir()] == [folder.name]


@pytest.mark.slow
def test_two_processes_make_one_model(tmp_path: Path) -> None:
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            cwd=Path(laptop_models.__file__).parents[1],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    said = [maker.communicate(timeout=250)[0] for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0]
    folder = laptop_folder("shrunken", SPLIT)
    assert [Path(line.strip()) for line in said] == [folder, folder]
    assert [f.name for f in folder.parent.iterdir()] == [folder.name]
    AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.slow
def test_every_process_makes_the_same_model(tmp_path: Path) -> None:
    made = []
    for seed in (1, 2):
        cache = tmp_path / f"cache{seed}"
        environment = {"PYTHONHASHSEED": str(seed), "ORCHESTRATOR_CACHE": str(cache)}
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            cwd=Path(laptop_models.__file__).parents[1],
            env=os.environ | environment,
            check=True,
        )
        made.append(contents(next((cache / "models").iterdir())))
    assert made[0] == made[1]
