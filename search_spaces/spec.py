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
Rl = Literal["ppo", "rloo", "none"]

PositiveInt = Annotated[int, Field(gt=0, lt=2**63)]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**63)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Generations = Annotated[int, Field(ge=2, lt=2**31)]
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
    packing: bool = False
    """Whole training examples one after the other in sequences of up to `max_length` tokens; each
    can then see those before it."""


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


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RlSettings:
    """Reinforcement learning after a supervised phase; fields only, for the methods that have it."""

    rl: Rl = "ppo"
    """Proximal policy optimisation, REINFORCE leave-one-out, or the supervised phase alone."""
    rl_epochs: PositiveInt = 1
    """Passes over the prompts."""
    rl_learning_rate: PositiveFloat = 1.41e-5
    rl_batch_size: PositiveInt = 4
    """Replies per update."""
    rl_mini_batch_size: PositiveInt = 4
    """Replies per optimiser step within an update."""
    rl_max_new_tokens: PositiveInt = 200
    """Longest reply that is sampled, in tokens."""
    rl_temperature: PositiveFloat = 1.0
    rl_iterations: PositiveInt = 4
    """Passes over an update's replies."""
    kl_coef: NonNegativeFloat = 0.2
    """Weight of the KL penalty against the supervised model; at the beginning, where it adapts."""
    kl_target: PositiveFloat | None = 6.0
    """PPO: nats per reply that the weight adapts towards; null: the weight is fixed."""
    kl_horizon: PositiveInt = 10_000
    """PPO: replies over which the weight adapts."""
    gamma: Fraction = 1.0
    """PPO: discount a token."""
    gae_lambda: Fraction = 0.95
    """PPO: 0 trusts the values, 1 the rewards."""
    clip_range: PositiveFloat = 0.2
    """How far a probability ratio may move in an update."""
    value_clip_range: PositiveFloat = 0.2
    """PPO: how far a value may move in an update."""
    value_coef: NonNegativeFloat = 0.1
    """PPO: weight of the value loss."""
    value_model: Literal["own", "shared"] = "own"
    """PPO: whether the values have a backbone of their own, or read the policy's."""
    whiten_rewards: bool = False
    """PPO: rewards of unit variance over an update."""
    num_generations: Generations = 2
    """RLOO: replies per prompt, each the others' baseline."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ChatMglSettings(RlSettings):
    """The study's baseline: supervised on questions and answers, a reward model, then RL on it.

    `training` is the supervised phase's; the dialogues of the corpus are not trained on.
    """

    kind: Literal["chatmgl"] = "chatmgl"
    qa_data: NonEmpty = "sample"
    """Questions and answers: `sample` (bundled; its preferred answers), or a JSON or JSONL file."""
    preference_data: NonEmpty = "sample"
    """What the reward model learns from: `sample` (bundled), or a JSON or JSONL file of preferred
    and rejected answers, or of labelled ones."""
    reward_model: NonEmpty | None = "distilbert-base-uncased"
    """Encoder that the reward model starts from, by name or folder; null: the trial's own model."""
    reward_epochs: PositiveInt = 5
    reward_learning_rate: PositiveFloat = 5e-5
    reward_batch_size: PositiveInt = 8
    """Comparisons (or labelled answers) per optimiser step."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ReaderSettings(RlSettings):
    """Act and reply learnt jointly, then RL on act, similarity and overlap with the reference."""

    kind: Literal["reader"] = "reader"
    rl_learning_rate: PositiveFloat = 1.41e-6
    rl_batch_size: PositiveInt = 16
    rl_mini_batch_size: PositiveInt = 16
    rl_max_new_tokens: PositiveInt = 64
    gamma: Fraction = 0.99
    value_model: Literal["own", "shared"] = "shared"
    act_loss_weight: NonNegativeFloat = 1.0
    """Weight of the act head's cross-entropy beside the reply's, in the supervised phase."""
    act_reward_weight: NonNegativeFloat = 0.1
    """Of the act head's logit for the reference's act."""
    similarity_weight: NonNegativeFloat = 1.0
    """Of the cosine between reply and reference under `similarity_model`."""
    similarity_model: NonEmpty = "sentence-transformers/all-MiniLM-L6-v2"
    """Encoder by name or folder."""
    bleu1_weight: NonNegativeFloat = 1.0
    rouge1_weight: NonNegativeFloat = 1.0
    rouge2_weight: NonNegativeFloat = 4.0
    rouge_l_weight: NonNegativeFloat = 2.0
    bertscore_weight: NonNegativeFloat = 0.0
    """Of BERTScore F1, which the paper mentions, under the trial's `bertscore_model`."""
    reward_shift: float = -0.2
    """Added to every reward."""


Method = (
    BaseSettings
    | SftSettings
    | DeltaSettings
    | DialogueActSettings
    | ChatMglSettings
    | ReaderSettings
)
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
