"""`delta`: parameter-efficient tuning; a frozen base and a small trained part.

Sources: LoRA (Hu et al. 2021), prefix tuning (Li and Liang 2021), prompt tuning (Lester et al.
2021), P-tuning (Liu et al. 2021), IA3 (Liu et al. 2022), LN tuning (Qi et al. 2022) by PEFT;
BitFit (Ben Zaken et al. 2021) by hand, because PEFT has no type for "the biases alone";
bottleneck adapters by `bottleneck.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from search_spaces.errors import one_problem
from search_spaces.spec import DeltaSettings, TrialSpec
from trainers.errors import ModelError
from trainers.examples import check_length
from trainers.loading import load_model
from trainers.peft_adapters import load_adapter, peft_warnings_ignored
from trainers.task import TrainingTask
from trainers.tune import tune
from trainers.tuned import TunedModel

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train_delta(task: TrainingTask, settings: DeltaSettings) -> TunedModel:
    """Tune a small part of a model, or a small addition to it.

    Args:
        task: the adapter is saved under `model/` in its folder, in PEFT's format (BitFit: as a
            whole model; bottleneck adapters: as `bottleneck_files.py` says).
        settings: which part, and how large.

    Raises:
        ModelError: the model cannot be loaded, is too short, or lacks what is to be tuned.
        DivergedError: a loss or gradient became NaN or infinite.
        StoppedError: the task was to stop; the next call continues.
    """
    if settings.peft_type == "prefix" and task.spec.training.gradient_checkpointing:
        raise ModelError(
            one_problem(
                "search space",
                "gradient_checkpointing",
                "prefix tuning gives the model a cache, which checkpointing would fill twice",
                True,
                "false",
            )
        )
    return tune(
        task,
        lambda: _build(task.spec, settings, task.source),
        lambda folder: _load(settings, task.source, folder),
    )


def virtual_tokens(settings: DeltaSettings) -> int:
    """Positions that the method takes in front of the text.

    Args:
        settings: the method's.
    """
    learned = settings.peft_type in ("prefix", "prompt", "p-tuning")
    return settings.num_virtual_tokens if learned else 0


def _build(
    spec: TrialSpec, settings: DeltaSettings, source: Path
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    from transformers import set_seed

    set_seed(spec.seed)
    base, tokenizer = load_model(source)
    check_length(base.config, spec, virtual_tokens(settings))
    match settings.peft_type:
        case "bitfit":
            return _open_biases(base), tokenizer
        case "houlsby" | "parallel":
            from trainers.bottleneck import add_bottlenecks

            return add_bottlenecks(base, settings), tokenizer
        case _:
            return adapt(base, settings), tokenizer


def _load(
    settings: DeltaSettings, source: Path, folder: Path
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """The tuned model from its folder; `source` holds the base of an adapter."""
    if settings.peft_type == "bitfit":
        return load_model(folder)
    base, tokenizer = load_model(source)
    if settings.peft_type in ("houlsby", "parallel"):
        from trainers.bottleneck_files import load_bottlenecks

        return load_bottlenecks(base, folder), tokenizer
    return load_adapter(base, folder), tokenizer


def adapt(base: PreTrainedModel, settings: DeltaSettings) -> PeftModel:
    """A model with a fresh adapter of PEFT's.

    Args:
        base: frozen and changed in place.
        settings: which adapter; one that PEFT has.

    Raises:
        ModelError: the model lacks what is to be adapted.
    """
    from peft import get_peft_model

    try:
        if _output_layer(base).intersection(settings.target_modules or ()):
            raise ValueError("the output layer's loss is fused with it, past any adapter")
        with peft_warnings_ignored():
            model = get_peft_model(base, _peft_config(base, settings))
    except ValueError as error:
        raise ModelError(
            one_problem(
                "search space",
                "target_modules",
                f"{settings.peft_type} cannot be applied to a {base.config.model_type} model: "
                f"{str(error).splitlines()[0]}",
                ", ".join(settings.target_modules or ()),
            )
        ) from error
    return model


def _output_layer(base: PreTrainedModel) -> set[str]:
    """Every name by which a target could mean the layer that gives the scores."""
    output = base.get_output_embeddings()
    paths = [name.split(".") for name, module in base.named_modules() if module is output]
    return {".".join(path[start:]) for path in paths for start in range(len(path))}


def _peft_config(base: PreTrainedModel, settings: DeltaSettings) -> PeftConfig:
    import peft

    causal = peft.TaskType.CAUSAL_LM
    targets = list(settings.target_modules) if settings.target_modules else None
    # GPT-2 keeps its weights transposed (Conv1D).
    transposed = base.config.model_type == "gpt2"
    match settings.peft_type:
        case "lora":
            return peft.LoraConfig(
                task_type=causal,
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules=targets,
                fan_in_fan_out=transposed,
            )
        case "ia3":
            return peft.IA3Config(
                task_type=causal, target_modules=targets, fan_in_fan_out=transposed
            )
        case "prefix":
            return peft.PrefixTuningConfig(
                task_type=causal, num_virtual_tokens=settings.num_virtual_tokens
            )
        case "prompt":
            return peft.PromptTuningConfig(
                task_type=causal, num_virtual_tokens=settings.num_virtual_tokens
            )
        case "p-tuning":
            return peft.PromptEncoderConfig(
                task_type=causal,
                num_virtual_tokens=settings.num_virtual_tokens,
                encoder_hidden_size=base.config.hidden_size,
            )
        case "ln-tuning":
            return peft.LNTuningConfig(task_type=causal)
        case "bitfit" | "houlsby" | "parallel":
            raise AssertionError(f"{settings.peft_type} has no PEFT configuration")
        case _:
            assert_never(settings.peft_type)


def _open_biases(base: PreTrainedModel) -> PreTrainedModel:
    biases = 0
    for name, parameter in base.named_parameters():
        parameter.requires_grad = name.endswith(".bias")
        biases += parameter.requires_grad
    if not biases:
        raise ModelError(
            one_problem(
                "search space",
                "peft_type",
                f"bitfit tunes biases, and a {base.config.model_type} model has none",
                "bitfit",
                "ln-tuning",
            )
        )
    return base
