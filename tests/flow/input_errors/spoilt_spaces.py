"""A search space that is as it should be, each way to spoil it, and what has to be said of it."""

from __future__ import annotations

from dataclasses import dataclass

SPACE = """\
name: tiny
defaults:
  model: medium
  max_length: 96
  max_new_tokens: 8
  bertscore_model: null
stages:
  - name: first
    grid: {batch_size: [1, 2]}
    methods: [{kind: sft}]
  - name: second
    from: {stage: first, best: valid/rouge1_beam1}
    methods: [{kind: base}, {kind: delta, peft_type: lora}]
"""


@dataclass(frozen=True)
class Spoilt:
    """The search space with one piece replaced, and what has to be said of it."""

    name: str
    old: str
    new: str
    says: tuple[str, ...]


SPOILT = (
    Spoilt(
        "unknown key",
        "stages:",
        "stage:",
        ("grid.yaml: stage (line 7): unknown key", "got 'stage'; did you mean stages?"),
    ),
    Spoilt(
        "unknown field",
        "max_length: 96",
        "max_lenght: 96",
        ("grid.yaml: defaults.max_lenght (line 4)", "did you mean max_length?"),
    ),
    Spoilt(
        "unknown axis",
        "grid: {batch_size",
        "grid: {batchsize",
        ("grid.yaml: stages[0].grid.batchsize (line 9)", "did you mean batch_size?"),
    ),
    Spoilt(
        "number as a word",
        "batch_size: [1, 2]",
        "batch_size: [1, two]",
        ("stages[0].grid.batch_size[1] (line 9)", "must be a valid integer", "got 'two'"),
    ),
    Spoilt(
        "list for a number",
        "max_length: 96",
        "max_length: [96]",
        ("defaults.max_length (line 4)", "must be a valid integer", "got [96]"),
    ),
    Spoilt(
        "truth value for a number",
        "batch_size: [1, 2]",
        "batch_size: [yes]",
        ("stages[0].grid.batch_size[0] (line 9)", "not a truth value, got true"),
    ),
    Spoilt(
        "unknown loader",
        "batch_size: [1, 2]",
        "loader: [v1, V3]",
        ("stages[0].grid.loader[1] (line 9)", "must be v1, v2, shift, got 'V3'; did you mean v"),
    ),
    Spoilt(
        "unknown method",
        "kind: sft",
        "kind: stf",
        (
            "stages[0].methods[0].kind (line 10)",
            "must be base, sft, delta, dialogue_act, chatmgl, reader, got 'stf'; did you mean sft?",
        ),
    ),
    Spoilt(
        "method as a list",
        "kind: sft",
        "kind: [sft]",
        ("stages[0].methods[0].kind (line 10)", "got ['sft']"),
    ),
    Spoilt(
        "unknown peft type",
        "peft_type: lora",
        "peft_type: loar",
        ("stages[1].methods[1].peft_type (line 13)", "got 'loar'; did you mean lora?"),
    ),
    Spoilt(
        "setting of another method",
        "kind: sft",
        "kind: sft, rank: 8",
        ("stages[0].methods[0].rank (line 10)", "unknown setting of sft, got 'rank'"),
    ),
    Spoilt(
        "winner by a test score",
        "best: valid/",
        "best: test/",
        (
            "stages[1].from.best (line 12)",
            "never on test scores, got 'test/rouge1_beam1'; did you mean valid/rouge1_beam1?",
        ),
    ),
    Spoilt(
        "winner of an unknown stage",
        "stage: first",
        "stage: frist",
        ("stages[1].from.stage (line 12)", "got 'frist'; did you mean first?"),
    ),
    Spoilt(
        "winner in an unknown direction",
        "rouge1_beam1}",
        "rouge1_beam1, mode: maximum}",
        ("stages[1].from.mode (line 12)", "got 'maximum'; did you mean max?"),
    ),
    Spoilt(
        "winner by a beam that is not decoded",
        "rouge1_beam1}",
        "rouge1_beam4}",
        ("tiny: stage second.from.best", "got [1]; did you mean valid_beams=[1, 4]?"),
    ),
    Spoilt(
        "winner by a score that is left out",
        "rouge1_beam1}",
        "bertscore_f1}",
        ("tiny: stage second.from.best: `bertscore_model` must be set, got valid/bertscore_f1",),
    ),
    Spoilt(
        "zip of unequal lengths",
        "grid: {batch_size: [1, 2]}",
        "zip: {batch_size: [1, 2], epochs: [1, 2, 3]}",
        ("stages[0].zip (line 9)", "got {'batch_size': 2, 'epochs': 3}"),
    ),
    Spoilt(
        "empty axis",
        "batch_size: [1, 2]",
        "batch_size: []",
        ("stages[0].grid.batch_size (line 9)", "an axis must have at least one value, got []"),
    ),
    Spoilt(
        "value twice in an axis",
        "batch_size: [1, 2]",
        "batch_size: [2, 2]",
        ("stages[0].grid.batch_size[1] (line 9)", "may stand once in an axis, got 2"),
    ),
    Spoilt(
        "everything excluded",
        "    methods: [{kind: sft}]",
        "    exclude: [{kind: sft}]\n    methods: [{kind: sft}]",
        ("tiny: stage first: `exclude` leaves no trial to run",),
    ),
    Spoilt(
        "negative learning rate",
        "max_length: 96",
        "learning_rate: -1.0e-4",
        ("defaults.learning_rate (line 4): must be greater than 0, got -0.0001",),
    ),
    Spoilt(
        "infinite learning rate",
        "max_length: 96",
        "learning_rate: .inf",
        ("defaults.learning_rate (line 4): must be a finite number, got inf",),
    ),
    Spoilt(
        "penalty that is no number",
        "max_length: 96",
        "length_penalty: .nan",
        ("defaults.length_penalty (line 4): must be a finite number, got nan",),
    ),
    Spoilt(
        "beam of width 0",
        "max_length: 96",
        "beams: [1, 0]",
        ("defaults.beams[1] (line 4): must be greater than 0, got 0",),
    ),
    Spoilt(
        "template without a place for the prompt",
        "max_length: 96",
        "prompt_template: 'Patient: {promt}'",
        ("defaults.prompt_template (line 4)", r"must match pattern '\{prompt\}'", "{promt}"),
    ),
    Spoilt(
        "seed as a default",
        "max_length: 96",
        "seed: 3",
        ("defaults.seed (line 4)", "got 'seed'; did you mean seeds?"),
    ),
    Spoilt(
        "no model",
        "  model: medium\n",
        "",
        ("tiny: no `model` is named in",),
    ),
    Spoilt(
        "name with a path",
        "name: tiny",
        "name: ../tiny",
        ("grid.yaml: name (line 1)", "it names a folder", "got '../tiny'"),
    ),
    Spoilt(
        "key twice",
        "  max_length: 96",
        "  max_length: 96\n  max_length: 64",
        ("grid.yaml: line 5: a key may stand once, but stands in line 4 too, got 'max_length'",),
    ),
    Spoilt(
        "tab",
        "  max_length: 96",
        "\tmax_length: 96",
        ("grid.yaml: line 4, column 1: is not valid YAML", r"'\t'"),
    ),
    Spoilt(
        "bracket left open",
        "grid: {batch_size: [1, 2]}",
        "grid: {batch_size: [1, 2}",
        ("grid.yaml: line 9, column 29: is not valid YAML", "expected ',' or ']'"),
    ),
    Spoilt(
        "Python object",
        "name: tiny",
        "name: !!python/object/apply:os.getcwd []",
        ("grid.yaml: line 1", "without a tag, got '!!python/object/apply:os.getcwd'"),
    ),
    Spoilt(
        "NUL byte", "name: tiny", "name: ti\0ny", ("grid.yaml: line 1: NUL bytes cannot stand",)
    ),
    Spoilt(
        "reply as long as the text",
        "max_new_tokens: 8",
        "max_new_tokens: 96",
        (
            "tiny: stage first: `max_new_tokens < max_length` must hold",
            "got max_new_tokens=96, max_length=96; did you mean max_new_tokens=48?",
        ),
    ),
    Spoilt(
        "reward by a BERTScore that is left out",
        "methods: [{kind: sft}]",
        "methods: [{kind: reader, similarity_weight: 0, bertscore_weight: 1}]",
        (
            "tiny: stage first: `bertscore_model` must be set where `bertscore_weight` is not 0",
            "got bertscore_weight=1.0; did you mean bertscore_weight=0?",
        ),
    ),
    Spoilt(
        "text longer than the model's positions",
        "max_length: 96",
        "max_length: 513",
        (
            "tiny: stage first: `max_length + virtual tokens <= 512` must hold, "
            "the positions of laptop-medium",
            "got max_length=513, virtual tokens=0; did you mean max_length=512?",
        ),
    ),
    Spoilt(
        "no room for the published protocol's replies",
        "max_new_tokens: 8",
        "protocol: chatmgl",
        ("tiny: stage first: `max_length > 150` must hold", "got max_length=96"),
    ),
    Spoilt(
        "prefix longer than the model's positions, in a later stage",
        "peft_type: lora",
        "peft_type: prefix, num_virtual_tokens: 500",
        (
            "tiny: stage second",
            "got max_length=96, virtual tokens=500; did you mean num_virtual_tokens=416?",
        ),
    ),
    Spoilt(
        "unknown model",
        "model: medium",
        "model: gpt2-medum",
        ("model: ", "got 'gpt2-medum'; did you mean gpt2-medium?"),
    ),
    Spoilt(
        "missing model folder",
        "model: medium",
        "model: ./models/gpt3",
        ("model: the folder must exist, got './models/gpt3'; did you mean models/gpt2?",),
    ),
    Spoilt(
        "model folder without weights",
        "model: medium",
        "model: ./models/gpt2",
        ("model: models/gpt2: the folder must hold model.safetensors, got './models/gpt2'",),
    ),
    Spoilt(
        "model folder with a broken configuration",
        "model: medium",
        "model: ./models/broken",
        ("models/broken/config.json", "must be JSON"),
    ),
    Spoilt(
        "model folder with torn weights",
        "model: medium",
        "model: ./models/torn",
        ("models/torn/model.safetensors: must be whole safetensors weights",),
    ),
    Spoilt(
        "missing BERTScore folder",
        "bertscore_model: null",
        "bertscore_model: ./no-encoder",
        ("metrics: bertscore_model: the folder must exist, got './no-encoder'",),
    ),
    Spoilt(
        "unknown BERTScore encoder",
        "bertscore_model: null",
        "bertscore_model: distilbert-base-uncase",
        (
            "bertscore_model: ",
            "got 'distilbert-base-uncase'; did you mean distilbert-base-uncased?",
        ),
    ),
    Spoilt(
        "missing corpus in the search space",
        "model: medium",
        "model: medium\n  corpus: corpsu.csv",
        ("corpsu.csv: ", "this does not exist; did you mean corpus.csv?"),
    ),
    Spoilt(
        "fractions of more than all sessions",
        "max_length: 96",
        "train_fraction: 0.95",
        ("split: fractions must sum to", "train_fraction=0.95"),
    ),
)
