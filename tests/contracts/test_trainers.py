"""Every method, on every tiny model it applies to: what a trainer promises of a tuned model."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from corpora.dialogue import Pair
from evaluators.decoding import generate
from search_spaces.spec import (
    BaseSettings,
    ChatMglSettings,
    DeltaSettings,
    DialogueActSettings,
    Method,
    MethodSettings,
    PeftType,
    ReaderSettings,
    SftSettings,
    TrialSpec,
)
from tests.tiny import tiny_pairs, tiny_spec
from trainers import reinforce, tune
from trainers.act_head import ActHead
from trainers.course import Course
from trainers.encoder_files import BUNDLED_ENCODER
from trainers.encoding import encode_prompt
from trainers.loading import load_model
from trainers.progress import EpochReport
from trainers.select import train
from trainers.tuned import TunedModel

PAIRS = tiny_pairs()
METHODS: dict[str, Method] = {
    "base": BaseSettings(),
    "sft": SftSettings(),
    **{peft_type: DeltaSettings(peft_type=peft_type) for peft_type in get_args(PeftType)},
    "acts": DialogueActSettings(),
    "acts-lora": DialogueActSettings(tuning="lora"),
    "chatmgl": ChatMglSettings(rl="none"),
    "reader": ReaderSettings(rl="none"),
    "reader-ppo": ReaderSettings(
        similarity_model=BUNDLED_ENCODER, rl_max_new_tokens=6, rl_batch_size=3, rl_iterations=1
    ),
}
WHOLE_MODELS = ("base", "sft", "bitfit", "acts", "chatmgl", "reader", "reader-ppo")
"""Methods whose result is a whole model; the others' is an adapter."""
BOTTLENECKS = ("houlsby", "parallel")
"""Methods whose adapter is in files of our own; its card loads it."""
WITH_ACTS = ("acts", "acts-lora")
"""Methods whose replies begin with an act token: those of two acts, and the one for unknown acts."""
WITH_HEAD = ("reader", "reader-ppo")
"""Methods with a head for two acts, which stands beside the model."""
ACTS = ("question", "reflection", "unknown")
ADDING = ("lora", "prefix", "prompt", "p-tuning", "ia3", "ln-tuning", "acts-lora", *BOTTLENECKS)
"""Methods that add parameters; the others train those that are there."""
TRAINABLE = {
    # Width H=32, 2 layers, feed-forward 4H (GPT-2) or 2H (Llama), keys and values H/2 (Llama),
    # 400 tokens, 128 positions.
    ("base", "gpt2"): 0,
    ("base", "llama"): 0,
    ("sft", "gpt2"): 42_368,
    ("sft", "llama"): 44_192,
    ("chatmgl", "gpt2"): 42_368,
    ("chatmgl", "llama"): 44_192,
    ("acts", "gpt2"): 42_368 + 3 * 32,
    ("acts", "llama"): 44_192 + 2 * 3 * 32,
    ("acts-lora", "gpt2"): 2 * 8 * (32 + 3 * 32) + 3 * 32,
    ("acts-lora", "llama"): 2 * 8 * ((32 + 32) + (32 + 16)) + 2 * 3 * 32,
    ("lora", "gpt2"): 2 * 8 * (32 + 3 * 32),
    ("lora", "llama"): 2 * 8 * ((32 + 32) + (32 + 16)),
    ("prefix", "gpt2"): 16 * 2 * (2 * 32),
    ("prefix", "llama"): 16 * 2 * (2 * 16),
    ("prompt", "gpt2"): 16 * 32,
    ("prompt", "llama"): 16 * 32,
    ("p-tuning", "gpt2"): 16 * 32 + 3 * (32 * 32 + 32),
    ("p-tuning", "llama"): 16 * 32 + 3 * (32 * 32 + 32),
    ("ia3", "gpt2"): 2 * (3 * 32 + 4 * 32),
    ("ia3", "llama"): 2 * (16 + 16 + 2 * 32),
    ("ln-tuning", "gpt2"): (2 * 2 + 1) * 2 * 32,
    ("ln-tuning", "llama"): (2 * 2 + 1) * 32,
    **{(name, "gpt2"): 42_368 + 2 * 32 + 2 for name in ("reader", "reader-ppo")},
    **{(name, "llama"): 44_192 + 2 * 32 + 2 for name in ("reader", "reader-ppo")},
    **{
        (name, family): 2 * adapters * (2 * 32 * 64 + 64 + 32)
        for name, adapters in (("houlsby", 2), ("parallel", 1))
        for family in ("gpt2", "llama")
    },
    ("bitfit", "gpt2"): 2 * (3 * 32 + 32 + 4 * 32 + 32 + 2 * 32) + 32,
}
"""Trainable parameters by method and family: what each method is said to train."""

pytestmark = [
    pytest.mark.usefixtures("no_network"),
    # Said by PEFT as a user loads and runs an adapter; none is about what we do:
    # it asks transformers by a name that is about to go,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # it looks for widths that a layer norm does not have (and LN tuning does not need),
    pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),
    # and it drops position ids, which one unpadded prompt does not need.
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]


@dataclass
class Trained:
    """One training and what was seen of it."""

    name: str
    spec: TrialSpec
    source: Path
    workdir: Path
    result: TunedModel
    told: list[EpochReport]
    before: dict[str, torch.Tensor] = field(default_factory=dict)
    """Parameters as training began."""
    open: set[str] = field(default_factory=set)
    """Names of those that training could change."""

    def load(self) -> tuple[Any, Any]:
        """Model and tokenizer from the result's folder, as a user would."""
        if self.name in BOTTLENECKS:
            names = self.run_card()
            return names["model"].eval(), names["tokenizer"]
        loader: Any = (
            AutoModelForCausalLM if self.name in WHOLE_MODELS else AutoPeftModelForCausalLM
        )
        model = loader.from_pretrained(self.result.folder)
        return model.eval(), AutoTokenizer.from_pretrained(self.result.folder)

    def run_card(self) -> dict[str, Any]:
        """What the card's example leaves behind."""
        card = (self.result.folder / "README.md").read_text(encoding="utf-8")
        (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        names: dict[str, Any] = {"FOLDER": str(self.result.folder)}
        exec(code, names)
        return names


@pytest.fixture(scope="module", params=TRAINABLE, ids="-".join)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two epochs of one step each."""
    name, family = request.param
    source = request.getfixturevalue(f"tiny_{family}")
    spec = tiny_spec(source, METHODS[name], max_steps=None, epochs=2, batch_size=6)
    workdir = tmp_path_factory.mktemp(f"{name}-{family}")
    seen: dict[str, Any] = {}

    def watched(model: Any, *rest: Any) -> Course:
        seen["before"] = {n: p.detach().clone() for n, p in model.named_parameters()}
        seen["open"] = {n for n, p in model.named_parameters() if p.requires_grad}
        return train_supervised(model, *rest)

    train_supervised = tune.train_supervised
    told: list[EpochReport] = []
    with pytest.MonkeyPatch.context() as watching:
        watching.setattr(tune, "train_supervised", watched)
        result = train(spec, source, PAIRS, workdir, told.append)
    return Trained(name, spec, source, workdir, result, told, **seen)


def test_every_method_is_covered() -> None:
    assert len(METHODS) == 16
    assert {name for name, _ in TRAINABLE} == set(METHODS)
    kinds = {type(settings) for settings in METHODS.values()}
    assert kinds == set(get_args(get_args(MethodSettings)[0]))


def test_what_is_trained_changes_and_nothing_else(trained: Trained) -> None:
    if trained.name == "base":
        trained.before = {
            name: p.detach() for name, p in load_model(trained.source)[0].named_parameters()
        }
    after = dict(trained.result.model.named_parameters())
    if trained.name in WITH_HEAD:
        assert isinstance(trained.result.acts, ActHead)
        after |= {f"act_head.{n}": p for n, p in trained.result.acts.named_parameters()}
    assert after.keys() == trained.before.keys()
    changed = {n for n, p in after.items() if not torch.equal(p, trained.before[n])}
    assert changed == trained.open
    assert bool(changed) is (trained.name != "base")


def test_frozen_weights_are_the_sources(trained: Trained) -> None:
    source = dict(load_model(trained.source)[0].named_parameters())
    model: Any = trained.result.model
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    frozen = {
        re.sub(r"token_adapter\.|base_layer\.", "", name): parameter
        for name, parameter in inner.named_parameters()
        if trained.name == "base" or not parameter.requires_grad
    }
    if trained.name in (*ADDING, "base"):
        assert frozen.keys() == source.keys()
    for name, parameter in frozen.items():
        # New tokens have rows behind the source's.
        assert torch.equal(parameter[: len(source[name])], source[name]), name


def test_parameters_are_counted(trained: Trained, request: pytest.FixtureRequest) -> None:
    name, family = request.node.callspec.params["trained"]
    expected, whole = TRAINABLE[name, family], TRAINABLE["sft", family]
    if name in WITH_ACTS:
        whole = TRAINABLE["acts", family]
    if name in WITH_HEAD:
        whole = TRAINABLE["reader", family]
    assert trained.result.trainable_parameters == expected
    assert trained.result.total_parameters == whole + (expected if name in ADDING else 0)


def test_the_result_can_be_used_at_once(trained: Trained) -> None:
    model: Any = trained.result.model
    assert not model.training
    assert not any(module.training for module in model.modules())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    assert inner.config.use_cache is True
    assert trained.result.valid_loss is not None
    assert (trained.result.train_loss is None) is (trained.name == "base")
    assert (trained.result.seconds_per_step is None) is (trained.name == "base")


def test_every_epoch_is_told_once(trained: Trained) -> None:
    steps, rows = [1, 2], 4
    if trained.name == "base":
        steps, rows = [0], 1
    elif trained.name == "chatmgl":
        # Its epochs are over questions; the corpus measures the finished model, once.
        last = trained.result.rows[-1].step
        steps, rows = [last], last + 1
    assert [report.step for report in trained.told] == steps
    assert {report.total_steps for report in trained.told} == {steps[-1]}
    epochs = [2] if trained.name == "chatmgl" else steps
    assert [report.epoch for report in trained.told] == epochs
    assert trained.told[-1].valid_loss == trained.result.valid_loss
    written = (trained.workdir / "train.csv").read_text().splitlines()[1:]
    assert len(written) == rows


def test_it_loads_as_it_was(trained: Trained) -> None:
    """A user's `from_pretrained` gives the scores that were evaluated."""
    model, tokenizer = trained.load()
    ids = torch.tensor([tokenizer("Patient: I do not sleep.\nTherapist:")["input_ids"]])
    with torch.inference_mode():
        loaded, kept = model(input_ids=ids).logits, trained.result.model(input_ids=ids).logits
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded, kept, rtol=1e-5, atol=1e-5)
    files = {file.name for file in trained.result.folder.iterdir()}
    assert ("adapter_model.safetensors" in files) is (trained.name not in WHOLE_MODELS)
    assert ("model.safetensors" in files) is (trained.name in WHOLE_MODELS)


def test_it_answers_as_it_was_evaluated(trained: Trained) -> None:
    """Our beam-1 replies are those of the loaded model's own `generate`, prompt by prompt."""
    model, tokenizer = trained.load()
    spec = trained.spec
    room = spec.training.max_length - spec.decoding.max_new_tokens - (trained.name in WITH_ACTS)
    if trained.name == "base":
        settings = GenerationConfig(
            max_new_tokens=spec.decoding.max_new_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    else:
        settings = GenerationConfig.from_pretrained(trained.result.folder)
    replies = generate(trained.result, PAIRS.test, spec.decoding, (1,), spec.training.max_length, 0)
    assert len(replies) == len(PAIRS.test)
    for pair, reply in zip(PAIRS.test, replies, strict=True):
        prompt = encode_prompt(tokenizer, pair.prompt, spec.decoding.prompt_template, room)
        ids = torch.tensor([prompt])
        if trained.name in WITH_ACTS:
            tokens = tokenizer.convert_tokens_to_ids([f"<act:{act}>" for act in ACTS])
            with torch.inference_mode():
                act = model(input_ids=ids).logits[0, -1, tokens].argmax()
            assert ACTS[act] == reply.predicted_act
            assert reply.model_input is not None
            assert reply.model_input.endswith(f"\nTherapist:<act:{ACTS[act]}>")
            prompt = [*prompt, tokens[act]]
            ids = torch.tensor([prompt])
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
            )
        text = tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)
        assert text.strip() == reply.reply
    assert any(reply.reply for reply in replies)


def test_it_is_not_trained_again(trained: Trained, tmp_path: Path) -> None:
    """A second call gives what the first one gave, from the folder."""
    workdir = tmp_path / "again"
    shutil.copytree(trained.workdir, workdir)
    told: list[EpochReport] = []
    with pytest.MonkeyPatch.context() as watching:
        watching.setattr(tune, "train_supervised", lambda *_: pytest.fail("trained again"))
        watching.setattr(reinforce, "train_ppo", lambda *_, **__: pytest.fail("trained again"))
        again = train(trained.spec, trained.source, PAIRS, workdir, told.append)
    first = trained.result
    assert told == [trained.told[-1]]
    assert (again.digest, again.seconds, again.notes) == (first.digest, first.seconds, first.notes)
    assert again.digest.startswith("sha256:")
    assert again.seconds_per_step == first.seconds_per_step
    assert (again.train_loss, again.valid_loss) == (first.train_loss, first.valid_loss)
    assert again.trainable_parameters == first.trainable_parameters
    assert again.total_parameters == first.total_parameters
    assert not again.model.training
    assert {p.dtype for p in again.model.parameters()} == {torch.float32}
    spec = trained.spec
    for beam in (1, 3):
        replies = [
            generate(one, PAIRS.test, spec.decoding, (beam,), spec.training.max_length, 0)
            for one in (first, again)
        ]
        assert [r.reply for r in replies[0]] == [r.reply for r in replies[1]]
    rows = [(one / "train.csv").read_text() for one in (workdir, trained.workdir)]
    assert rows[0] == rows[1]


def test_its_card_shows_how(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    """The card's example runs, and answers as our own decoding does."""
    if trained.name == "base":
        assert trained.result.folder == trained.source
        assert [file.name for file in trained.workdir.iterdir()] == ["train.csv"]
        return
    names = trained.run_card()
    spec = trained.spec
    asked = Pair("s:1", "s", "I cannot sleep.", "Since when?")
    (reply,) = generate(trained.result, [asked], spec.decoding, (1,), spec.training.max_length, 0)
    assert capsys.readouterr().out == reply.reply + "\n"
    if trained.name in WITH_HEAD:
        assert names["act"] == reply.predicted_act
