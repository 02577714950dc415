"""The frozen specification of one trial: everything that its result depends on.

Field names are unique over all parts, so that a search space, `--set`, an MLflow parameter and a
table column can call a field by its bare name. Methods share a name where it means the same (`rank`).
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Loader = Literal["v1", "v2", "shift"]
"""How utterances become prompt-reply pairs; see `corpora/loaders.py`."""

Privacy = Literal["redact", "drop", "off"]
"""What happens to identifiers in texts that are logged or shown; see `corpora/privacy.py`."""

Precision = Literal["fp32", "bf16", "fp16"]
Protocol = Literal["clean", "chatmgl"]
Scale = Literal["paper", "laptop"]
Acts = Literal["predicted", "gold", "none"]
PeftType = Literal[
    "lora",
    "prefix",
    "prompt",
    "p-tuning",
    "ia3",
    "ln-tuning",
    "bitfit",
    "houlsby",
    "parallel",
]
NonLinearity = Literal["relu", "gelu", "silu", "tanh"]

PositiveInt = Annotated[int, Field(gt=0, lt=2**63)]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**63)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Beams = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
NonEmpty = Annotated[str, Field(min_length=1, max_length=4096)]
"""At most as long as a path can be."""

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What NumPy, too, takes for a seed."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ColumnMapping:
    """Which columns of a CSV or JSONL file hold what; for files that are neither HOPE nor AnnoMI."""

    session: NonEmpty
    """Column that tells the sessions apart."""
    speaker: NonEmpty
    """Column that names the speaker."""
    text: NonEmpty
    """Column that holds the utterance."""
    turn: str | None = None
    """Column that orders a session's utterances (numbers); file order where absent."""
    act: str | None = None
    """Column that holds the dialogue act, where there is one."""
    patient: tuple[str, ...] = ("P", "patient", "client", "user")
    """Values of the speaker column that mean the patient (case-insensitive)."""
    therapist: tuple[str, ...] = ("T", "therapist", "counsellor", "counselor", "assistant")
    """Values of the speaker column that mean the therapist (case-insensitive)."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CorpusSpec:
    """Which dialogues."""

    corpus: NonEmpty = "sample"
    """`sample` (bundled), or the path of a file or folder."""
    columns: ColumnMapping | None = None
    """Column mapping; absent for formats that are recognised."""
    privacy: Privacy = "redact"
    """Texts that hold personal identifiers are logged and shown `redact`ed, or `drop`ped, or as they
    are (`off`). Training and scores never depend on it, and neither does a trial's identity."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SplitSpec:
    """How sessions are divided, and how many pairs of each part are used."""

    train_fraction: Fraction = 0.8
    valid_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.1
    split_seed: Seed = 0
    max_train_pairs: PositiveInt | None = None
    """At most this many training pairs, drawn without regard to their order; all where absent."""
    max_valid_pairs: PositiveInt | None = None
    max_test_pairs: PositiveInt | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainingSpec:
    """How a model is tuned; read by every method that trains."""

    learning_rate: PositiveFloat = 5e-5
    """Peak learning rate."""
    batch_size: PositiveInt = 1
    """Pairs per device and forward pass (`per_device_train_batch_size`)."""
    gradient_accumulation_steps: PositiveInt = 1
    """Forward passes per optimiser step."""
    epochs: PositiveInt = 1
    """Passes over the training pairs."""
    max_steps: PositiveInt | None = None
    """Stop after this many optimiser steps, whatever `epochs` says."""
    optimizer: Literal[
        "adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "rmsprop", "adagrad"
    ] = "adamw_torch"
    lr_scheduler: Literal[
        "linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"
    ] = "linear"
    warmup_steps: NonNegativeInt = 0
    """Optimiser steps over which the learning rate rises from zero."""
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: NonNegativeFloat = 1.0
    """Gradient-norm clipping; 0 turns it off."""
    max_length: Annotated[int, Field(ge=16)] = 512
    """Tokens of prompt and reply together; the prompt loses its oldest tokens first."""
    precision: Precision = "fp32"
    loss_on: Literal["reply", "all"] = "reply"
    """Tokens that count in the loss: the reply's alone, or the prompt's too."""
    gradient_checkpointing: bool = False


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DecodingSpec:
    """How replies are generated."""

    protocol: Protocol = "clean"
    """`clean`: beam search, the prompt cut off. `chatmgl`: as the published ChatMGL code scored."""
    beams: Beams = (1, 2, 4)
    """Beam widths on the test pairs."""
    valid_beams: Beams = (1,)
    """Beam widths on the validation pairs, from which winners are chosen."""
    max_new_tokens: PositiveInt = 64
    length_penalty: float = 1.0
    eval_batch_size: PositiveInt = 32
    """Prompts decoded together."""
    prompt_template: Annotated[str, Field(pattern=r"\{prompt\}")] = "Patient: {prompt}\nTherapist:"
    """Text around the patient's words; `{prompt}` is replaced."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MetricsSpec:
    """How replies are scored; ROUGE and METEOR always are."""

    bertscore_model: NonEmpty | None = "distilbert-base-uncased"
    """Encoder for BERTScore by name or folder; absent: BERTScore is left out and its cells say so."""
    bertscore_layer: PositiveInt | None = None
    """Encoder layer; absent: the layer bert-score recommends, else the last."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BaseSettings:
    """The model as published, untrained."""

    kind: Literal["base"] = "base"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SftSettings:
    """Full supervised fine-tuning."""

    kind: Literal["sft"] = "sft"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DeltaSettings:
    """Parameter-efficient ("delta") tuning: a frozen base and a small trained part."""

    kind: Literal["delta"] = "delta"
    peft_type: PeftType = "lora"
    rank: PositiveInt = 8
    """LoRA rank."""
    alpha: PositiveFloat = 16.0
    """LoRA scale is `alpha / rank`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """LoRA dropout."""
    target_modules: Annotated[tuple[NonEmpty, ...], Field(min_length=1)] | None = None
    """Module names that get LoRA or IA3; absent: PEFT's own choice for the architecture."""
    num_virtual_tokens: PositiveInt = 16
    """Length of the learned prefix or prompt."""
    bottleneck: PositiveInt = 64
    """Width of a bottleneck adapter (`houlsby`, `parallel`)."""
    non_linearity: NonLinearity | None = None
    """Within a bottleneck adapter; absent: its paper's own, `gelu` for houlsby, `relu` for parallel."""
    adapter_scale: PositiveFloat = 4.0
    """Share of a `parallel` adapter in the sum."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DialogueActSettings:
    """Tuning in which a control token before the reply names the reply's dialogue act."""

    kind: Literal["dialogue_act"] = "dialogue_act"
    acts: Acts = "predicted"
    """The act that a reply is generated with: the model's own prediction, or the reference's
    (`gold`). `none` is the control: the same training without act tokens."""
    tuning: Literal["full", "lora"] = "full"
    """What is trained: every parameter, or a LoRA beside the rows of the act tokens."""
    rank: PositiveInt = 8
    """LoRA rank."""
    alpha: PositiveFloat = 16.0
    """LoRA scale is `alpha / rank`."""


Method = BaseSettings | SftSettings | DeltaSettings | DialogueActSettings
MethodSettings = Annotated[Method, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrialSpec:
    """One trial: what is trained, on what, how it is decoded and how it is scored."""

    model: NonEmpty
    """Hugging Face name or local folder of a causal language model, or `laptop-medium`, `laptop-large`."""
    method: MethodSettings
    loader: Loader = "v1"
    seed: Seed = 0
    corpus: CorpusSpec = field(default_factory=CorpusSpec)
    split: SplitSpec = field(default_factory=SplitSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    decoding: DecodingSpec = field(default_factory=DecodingSpec)
    metrics: MetricsSpec = field(default_factory=MetricsSpec)
