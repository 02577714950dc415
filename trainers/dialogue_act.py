"""`dialogue_act`: each reply is trained with a token before it that names its dialogue act.

The act tokens are new rows of the embeddings (see `act_tokens.py`); everything is trained, or a LoRA
(Hu et al. 2021) and the new rows alone. With `acts: none` the same training runs without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpora.act_labels import require_acts
from search_spaces.errors import Problem, one_problem
from search_spaces.spec import DialogueActSettings, TrialSpec
from trainers.act_tokens import ActTokens, act_ids, add_act_tokens, label_replies
from trainers.errors import ModelError
from trainers.examples import check_length
from trainers.loading import load_model
from trainers.peft_adapters import load_adapter, peft_warnings_ignored
from trainers.task import TrainingTask
from trainers.tune import tune
from trainers.tuned import TunedModel

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train_dialogue_act(task: TrainingTask, settings: DialogueActSettings) -> TunedModel:
    """Tune a model to write a reply's act, and then the reply.

    Args:
        task: an act that no training reply has counts as unknown; the model, or the adapter in
            PEFT's format, is saved under `model/`, with the tokenizer that has the act tokens.
        settings: whether there are act tokens, and what is trained.

    Raises:
        CorpusError: no training reply has a known act.
        ModelError: the model cannot be loaded, is too short, or cannot be given what is to be tuned.
        DivergedError: a loss or gradient became NaN or infinite.
        StoppedError: the task was to stop; the next call continues.
    """
    acts: Sequence[str] = ()
    if settings.acts != "none":
        acts = require_acts(task.spec.corpus.corpus, task.pairs)
        # The labels become part of the texts, and so of what a checkpoint must belong to.
        task = replace(task, pairs=label_replies(task.pairs, acts))
    lora = settings.tuning == "lora"
    tuned = tune(
        task,
        lambda: _build(task.spec, settings, task.source, acts),
        (lambda folder: _load_adapted(task.source, folder, acts)) if lora else load_model,
    )
    if not acts:
        return tuned
    return replace(tuned, acts=ActTokens(act_ids(tuned.tokenizer, acts), settings.acts == "gold"))


def _build(
    spec: TrialSpec, settings: DialogueActSettings, source: Path, acts: Sequence[str]
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    from transformers import set_seed

    set_seed(spec.seed)
    base, tokenizer = load_model(source)
    check_length(base.config, spec)
    ids = add_act_tokens(base, tokenizer, acts) if acts else {}
    if settings.tuning == "lora":
        return _adapt(base, settings, list(ids.values())), tokenizer
    return base, tokenizer


def _adapt(base: PreTrainedModel, settings: DialogueActSettings, tokens: list[int]) -> PeftModel:
    import peft

    config = peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=settings.rank,
        lora_alpha=settings.alpha,
        # GPT-2 keeps its weights transposed (Conv1D).
        fan_in_fan_out=base.config.model_type == "gpt2",
        trainable_token_indices=_trained_rows(base, tokens) if tokens else None,
    )
    try:
        with peft_warnings_ignored():
            model: PeftModel = peft.get_peft_model(base, config)
    except ValueError as error:
        raise ModelError(_not_adaptable(base, str(error).splitlines()[0])) from error
    if tokens:
        # TRL's loss reads the output layer's weight, which PEFT's wrapper has, and its bias.
        output: Any = base.get_output_embeddings()
        output.bias = None
    return model


def _trained_rows(base: PreTrainedModel, tokens: list[int]) -> dict[str, list[int]]:
    """Rows that are trained, by the path of their layer; of tied layers the first, which both use."""
    inputs: Any = base.get_input_embeddings()
    outputs: Any = base.get_output_embeddings()
    if getattr(outputs, "bias", None) is not None:
        # PEFT's own layer for trained rows would leave the bias out.
        raise ModelError(_not_adaptable(base, "its output layer has a bias"))
    layers = [inputs] if inputs.weight is outputs.weight else [inputs, outputs]
    return {
        name: tokens for layer in layers for name, module in base.named_modules() if module is layer
    }


def _not_adaptable(base: PreTrainedModel, why: str) -> tuple[Problem, ...]:
    message = f"lora cannot be applied to a {base.config.model_type} model: {why}"
    return one_problem("search space", "tuning", message, "lora", "full")


def _load_adapted(
    source: Path, folder: Path, acts: Sequence[str]
) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    base, tokenizer = load_model(source)
    if acts:
        add_act_tokens(base, tokenizer, acts)
    return load_adapter(base, folder), tokenizer
