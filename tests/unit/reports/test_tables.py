import json
from pathlib import Path

import pytest

from reports.fields import effective_fields, method_label, model_size, shown_float, shown_model
from reports.published import PARAMETERS
from reports.results import read_sweep
from reports.table import Row, Table, shown_number
from reports.tables import cost_table, evaluation_table, parameter_table, report_tables
from tests.unit.reports.sweep_builder import make_scores, make_spec, trial_id, write_grid


def cells(table: Table, *labels: str, kind: str = "trial") -> Row:
    (row,) = [r for r in table.rows if r.kind == kind and set(labels) <= set(r.labels)]
    return row


@pytest.fixture(scope="module")
def first(grid: Path) -> Table:
    table = parameter_table(read_sweep(grid))
    assert table is not None
    return table


@pytest.fixture(scope="module")
def second(grid: Path) -> Table:
    table = evaluation_table(read_sweep(grid))
    assert table is not None
    return table


def test_parameter_rows_are_settings_without_their_seed(first: Table) -> None:
    assert first.labels == ("Model", "Loader", "Learning rate", "Batch size", "Seeds")
    assert sum(row.kind == "trial" for row in first.rows) == 8
    row = cells(first, "laptop-large", "v1", "1e-4")
    assert row.trials == (trial_id(9), trial_id(10))
    rouge = row.cells[0]
    assert rouge.value == pytest.approx(14.85)
    assert rouge.n == 2
    assert rouge.spread == pytest.approx(0.7 / 2**0.5)
    assert rouge.text == "14.85 ± 0.49"


def test_published_numbers_stand_beside_the_same_settings(first: Table) -> None:
    assert cells(first, "laptop-medium", "v1", "1e-4").cells[0].published == 35.504
    winner = cells(first, "laptop-large", "v1", "1e-5")
    assert [cell.published for cell in winner.cells] == [
        36.332,
        30.601,
        27.820,
        0.780,
        0.767,
        0.796,
    ]
    assert cells(first, "laptop-medium", "v2", "1e-4").cells[0].published_text == "\u2013"
    assert not any(row.kind == "published" for row in first.rows)


def test_what_the_study_has_and_the_sweep_lacks_is_not_run(builder) -> None:
    made = builder()
    made.stage("parameters", "parameters")
    spec = make_spec(model="gpt2-large", learning_rate=1e-5, batch_size=2)
    made.done(trial_id(1), "a", spec, make_scores(9.0))
    table = parameter_table(read_sweep(made.finish()))
    assert table is not None
    missing = [row for row in table.rows if row.kind == "published"]
    assert len(missing) == len(PARAMETERS)  # the winner's batch size is 1, and ours is not
    assert {cell.text for row in missing for cell in row.cells} == {"not run"}
    assert missing[2].labels == ("gpt2-large", "v1", "1e-5", "1")
    assert missing[0].labels[-1] == "not stated"


def test_the_study_stands_beside_the_smallest_batch_size(builder) -> None:
    made = builder()
    made.stage("parameters", "parameters")
    for number, size in enumerate((4, 2), start=1):
        made.done(trial_id(number), f"b{size}", make_spec(batch_size=size), make_scores(9.0))
    table = parameter_table(read_sweep(made.finish()))
    assert table is not None
    assert cells(table, "2").cells[0].published == 35.504
    assert cells(table, "4").cells[0].published is None


def test_a_field_that_varies_gets_a_column(builder) -> None:
    made = builder()
    made.stage("parameters", None)
    for number, rank in enumerate((4, 8), start=1):
        spec = make_spec(method={"kind": "delta", "peft_type": "lora", "rank": rank})
        made.done(trial_id(number), f"r{rank}", spec, make_scores(9.0))
    made.done(trial_id(3), "sft", make_spec(epochs=3), make_scores(9.0))
    made.done(trial_id(4), "base", make_spec(method={"kind": "base"}), make_scores(9.0))
    table = parameter_table(read_sweep(made.finish()))
    assert table is not None
    assert {"Method", "Rank", "Epochs"} <= set(table.labels)
    ranks = [row.values[table.labels.index("Rank")] for row in table.rows if row.kind == "trial"]
    assert ranks == [4, 8, None]  # no row for the untrained model
    methods = evaluation_table(read_sweep(made.folder))
    assert methods is not None  # a stage without a table that compares methods
    assert cells(methods, "base").labels[methods.labels.index("Epochs")] == "\u2013"


@pytest.mark.parametrize(
    ("method", "label"),
    [
        ({"kind": "reader", "rl": "ppo"}, "reader (ppo)"),
        ({"kind": "reader", "rl": "none"}, "reader (no RL)"),
        ({"kind": "chatmgl", "rl": "rloo"}, "chatmgl (rloo)"),
        ({"kind": "chatmgl"}, "chatmgl (ppo)"),
        ({"kind": "delta", "peft_type": "lora"}, "delta (lora)"),
        ({"kind": "sft"}, "sft"),
    ],
)
def test_labels_tell_variants_of_a_method_apart(method: dict[str, str], label: str) -> None:
    assert method_label({"method": method}) == label


def test_the_loop_of_a_method_is_a_label_and_no_column(builder) -> None:
    made = builder()
    made.stage("methods", "methods")
    for number, rl in enumerate(("none", "ppo"), start=1):
        spec = make_spec(method={"kind": "reader", "rl": rl, "act_loss_weight": 1.0})
        made.done(trial_id(number), f"reader{number}", spec, make_scores(9.0))
    table = evaluation_table(read_sweep(made.finish()))
    assert table is not None
    named = [row.labels[0] for row in table.rows if row.kind == "trial"]
    assert named == ["reader (no RL)", "reader (ppo)"]
    assert "Rl" not in table.labels


def test_acts_are_a_label_and_a_note_and_no_column(builder) -> None:
    made = builder()
    made.stage("methods", "methods")
    variants = [
        ("predicted", "full", 0, 0.5),
        ("predicted", "full", 1, 0.25),
        ("gold", "lora", 0, 0),
    ]
    for number, (acts, tuning, seed, accuracy) in enumerate(variants, start=1):
        method = {"kind": "dialogue_act", "acts": acts, "tuning": tuning, "rank": 8, "alpha": 16.0}
        scores = make_scores(9.0) | {"test/act_accuracy": accuracy, "test/act_macro_f1": 0.125}
        spec = make_spec(method=method, seed=seed)
        made.done(trial_id(number), f"acts{number}", spec, scores, unknown_acts=4)
    control = make_spec(method={"kind": "dialogue_act", "acts": "none", "tuning": "full"})
    made.done(trial_id(4), "control", control, make_scores(9.0))
    blind = make_spec(method={"kind": "dialogue_act", "acts": "gold", "tuning": "full"})
    made.done(trial_id(5), "blind", blind, make_scores(9.0), unknown_acts=24)
    table = evaluation_table(read_sweep(made.finish()))
    assert table is not None
    named = [row.labels[0] for row in table.rows if row.kind == "trial"]
    assert named == [
        "dialogue_act (predicted)",
        "dialogue_act (gold, lora)",
        "dialogue_act (none)",
        "dialogue_act (gold)",
    ]
    assert not {"Acts", "Tuning"} & set(table.labels)
    (note,) = [note for note in table.notes if "dialogue acts" in note]
    assert note == (
        "Predicted dialogue acts, accuracy / macro-F1: "
        "acts1 (mean of 2 seeds) 0.375 / 0.125 over 20 of 24 pairs, "
        "acts3 0.000 / 0.125 over 20 of 24 pairs, "
        "blind \u2013 / \u2013 over 0 of 24 pairs; pairs whose act is unknown are left out."
    )


def test_states_are_told_apart(grid: Path, first: Table, second: Table, builder) -> None:
    assert {c.text for c in cells(first, "laptop-large", "v2", "1e-5").cells} == {"pending"}
    assert {c.text for c in cells(second, "delta (prefix)").cells} == {"pending"}
    assert {c.text for c in cells(second, "chatmgl", kind="published").cells} == {"not run"}
    made = builder()
    made.stage("parameters", None)
    made.fail(trial_id(1), "a", make_spec(), "diverged", "nan")
    made.done(trial_id(2), "b", make_spec(batch_size=2), make_scores(1.0, bertscore=False))
    table = parameter_table(read_sweep(made.finish()))
    assert table is not None
    assert {cell.text for cell in cells(table, "1").cells} >= {"failed"}
    assert [cell.text for cell in cells(table, "2").cells[3:]] == ["n/a"] * 3
    assert any(note.startswith("Failed: 1 of 2 trials: a (diverged)") for note in table.notes)
    assert any("BERTScore" in note for note in table.notes)


def test_evaluation_rows_are_methods_with_the_studys_names(second: Table) -> None:
    names = [(row.labels[0], row.labels[1]) for row in second.rows if row.kind != "floor"]
    assert names == [
        ("base", "GPT2"),
        ("delta (lora)", "Delta"),
        ("sft", "SFTT_V1"),
        ("sft", "SFTT_V2"),
        ("delta (prefix)", "Delta"),
        ("chatmgl", "ChatMGL"),
    ]
    assert cells(second, "base").cells[-1].published == 0.0441


def test_zero_is_a_value(second: Table) -> None:
    assert [cell.text for cell in cells(second, "delta (lora)").cells] == [
        "0.00", "0.00", "0.00", "0.500", "0.0000",
    ]  # fmt: skip


def test_the_best_trial_is_marked_and_floors_do_not_compete(first: Table, second: Table) -> None:
    for table in (first, second):
        for index in range(len(table.columns)):
            best = [row for row in table.rows if row.cells[index].best]
            assert {row.kind for row in best} == {"trial"}
            loader = table.labels.index("Loader")
            for winner in best:  # loaders have test sets of their own: each has its best
                rivals = [
                    row.cells[index].value
                    for row in table.rows
                    if row.kind == "trial" and row.values[loader] == winner.values[loader]
                ]
                assert winner.cells[index].value == max(v for v in rivals if v is not None)
                assert len(rivals) > 1
    floor = max(r.cells[0].value or 0 for r in second.rows if r.kind == "floor")
    assert floor == 14.45


def test_values_that_print_alike_are_equally_good(builder) -> None:
    made = builder()
    made.stage("parameters", None)
    for number, level in enumerate((9.0011, 9.0012, 3.0), start=1):
        spec = make_spec(batch_size=number)
        made.done(trial_id(number), f"t{number}", spec, make_scores(level))
    table = parameter_table(read_sweep(made.finish()))
    assert table is not None
    assert [row.cells[0].best for row in table.rows if row.kind == "trial"] == [True, True, False]


def test_floors_stand_in_both_tables(first: Table, second: Table) -> None:
    for table in (first, second):
        floors = [row for row in table.rows if row.kind == "floor"]
        assert len(floors) == 4
        assert floors[0].cells[0].value == 8.97


def test_floors_are_those_of_the_tables_own_test_sets(builder) -> None:
    made = builder()
    made.stage("parameters", None)
    spec = make_spec()
    made.done(trial_id(1), "a", spec, make_scores(9.0))
    folder = made.finish()
    entries = []
    for beams, split in (
        ([1], spec["split"]),
        ([1, 2, 4], spec["split"]),
        ([1], {"split_seed": 9}),
    ):
        parts = {"loader": "v1", "split": split, "decoding": {"protocol": "clean", "beams": beams}}
        scores = {"test/rouge1": 8.97} | {f"test/rouge1_beam{beam}": 8.97 for beam in beams}
        entries.append({"key": f"echo {json.dumps(parts)}", "floor": "echo", "loader": "v1",
                        "protocol": "clean", "test_pairs": 3, "scores": scores})  # fmt: skip
    entries.append({**entries[0], "protocol": "chatmgl", "scores": {"test/rouge1": 60.0}})
    (folder / "floors.json").write_text(json.dumps(entries))
    table = parameter_table(read_sweep(folder))
    assert table is not None
    floors = [row for row in table.rows if row.kind == "floor"]
    assert [[cell.value for cell in row.cells[:3]] for row in floors] == [[8.97] * 3]


def test_the_chatmgl_protocol_has_a_table_of_its_own(grid: Path) -> None:
    tables = {table.name: table for table in report_tables(read_sweep(grid))}
    assert list(tables) == ["table1", "table2", "table3", "table2_chatmgl", "table3_chatmgl"]
    other = tables["table2_chatmgl"]
    assert "prompt was left in the scored text" in other.caption
    assert "sampling" in other.caption
    clean = {
        trial for name in ("table1", "table2") for r in tables[name].rows for trial in r.trials
    }
    apart = {trial for row in other.rows for trial in row.trials}
    assert apart == {trial_id(24), trial_id(25)}
    assert not clean & apart
    assert not any(row.kind != "trial" for row in other.rows)


def test_laptop_scale_warns_on_every_table_and_paper_scale_on_none(
    grid: Path, tmp_path: Path
) -> None:
    assert all("not the paper's" in t.warning for t in report_tables(read_sweep(grid)))
    paper = write_grid(tmp_path / "paper_grid", "paper")
    assert all(table.warning == "" for table in report_tables(read_sweep(paper)))


def test_notes_say_what_the_numbers_rest_on(first: Table, second: Table) -> None:
    text = "\n".join(first.notes)
    assert "distilbert-base-uncased, layer 5" in text
    assert "Test pairs by loader: v1: 24; v2: 36" in text
    assert (
        "highest valid/rouge1_beam1 (14.85, mean of 2 seeds) on the validation pairs, never on test"
        in text
    )
    assert "Identical pairs in train and test by loader: v1: 2; v2: 2" in text
    assert "Failed: 2 of 16 trials" in text
    text = "\n".join(second.notes)
    assert "Empty test replies, of all beam widths: laptop-large_base_v1 3 of 72" in text
    assert "laptop-large_delta_lora_v1 20 of 72" in text
    assert "Winner of stage parameters" in text  # whose settings these methods stand on


def test_an_empty_plan_has_no_tables(builder) -> None:
    made = builder()
    made.stage("parameters", "parameters")
    assert report_tables(read_sweep(made.finish())) == ()


@pytest.mark.parametrize(
    ("value", "decimals", "shown"),
    [(0.0, 2, "0.00"), (-0.0001, 2, "0.00"), (5.135, 2, "5.14"), (35.504, 2, "35.50"),
     (0.72337, 3, "0.723"), (1e-9, 4, "0.0000"), (100.0, 2, "100.00")],
)  # fmt: skip
def test_numbers_are_rounded_as_they_are_written(value: float, decimals: int, shown: str) -> None:
    assert shown_number(value, decimals) == shown


def test_short_names() -> None:
    assert [shown_float(v) for v in (1e-4, 2.5e-5, 0.0, 16.0, 0.05)] == [
        "1e-4", "2.5e-5", "0", "16", "0.05",
    ]  # fmt: skip
    assert shown_model("/home/someone/models/tuned") == "tuned"
    assert shown_model("openai-community/gpt2-medium") == "gpt2-medium"
    assert shown_model("microsoft/DialoGPT-medium") == "microsoft/DialoGPT-medium"
    assert model_size("openai-community/gpt2-large") == "large"
    assert model_size("gpt2") == "small"
    assert model_size("laptop-medium") == "medium"
    assert model_size("microsoft/DialoGPT-medium") is None


def rewrite(made, trial: str, part: str, **values: object) -> None:
    file = made.folder / "trials" / trial / "result.json"
    record = json.loads(file.read_text())
    record[part] |= values
    file.write_text(json.dumps(record))


def test_costs_stand_beside_every_method(builder) -> None:
    made = builder()
    made.stage("methods", "methods")
    made.done(trial_id(1), "base", make_spec(method={"kind": "base"}), make_scores(3.0))
    lora = {"kind": "delta", "peft_type": "lora", "rank": 8}
    for seed in (0, 1):
        spec = make_spec(method=lora, seed=seed)
        made.done(trial_id(2 + seed), f"lora{seed}", spec, make_scores(9.0))
        counts = {"trainable_parameters": 786_432, "total_parameters": 355_609_600}
        rewrite(made, trial_id(2 + seed), "cost", **counts, seconds_per_step=0.1 + seed / 10)
    made.done(trial_id(4), "old", make_spec(), make_scores(9.0))
    odd = {"seconds_per_step": None, "peak_memory_gib": "much", "trainable_parameters": True}
    rewrite(made, trial_id(4), "cost", **odd)
    made.plan_trial(trial_id(5), "v2", make_spec(loader="v2"))
    made.fail(trial_id(6), "ia3", make_spec(method={**lora, "peft_type": "ia3"}), "oom", "!")
    table = cost_table(read_sweep(made.finish()))
    assert table is not None
    assert (table.name, table.title) == ("table3", "Table 3")
    assert [(row.labels[0], *(cell.text for cell in row.cells)) for row in table.rows] == [
        ("base", "0", "0.000", "3.25", "n/a"),
        ("delta (lora)", "786432", "0.221", "3.25", "0.150 ± 0.071"),
        ("sft", "n/a", "n/a", "n/a", "n/a"),
        ("sft", "pending", "pending", "pending", "pending"),
        ("delta (ia3)", "failed", "failed", "failed", "failed"),
    ]
    assert not any(cell.best for row in table.rows for cell in row.cells)
    text = "\n".join(table.notes)
    assert "Measured on: cpu." in text
    assert "Several seeds" in text
    assert "Failed: 1 of 6 trials: ia3 (oom)." in text
    assert "BERTScore" not in text


def test_settings_that_methods_have_defaults_of_their_own_for_are_no_columns(builder) -> None:
    made = builder()
    made.stage("methods", "methods")
    methods = [
        {"kind": "chatmgl", "rl": "ppo", "gamma": 1.0, "rl_batch_size": 4},
        {"kind": "reader", "rl": "ppo", "gamma": 0.99, "rl_batch_size": 16},
        {"kind": "reader", "rl": "ppo", "gamma": 0.99, "rl_batch_size": 32},
    ]
    for number, method in enumerate(methods, start=1):
        spec = make_spec(method=method)
        made.done(trial_id(number), f"trial{number}", spec, make_scores(3.0))
        rewrite(made, trial_id(number), "cost", fused_with=number - 1)
    table = evaluation_table(read_sweep(made.finish()))
    assert table is not None
    assert "Rl batch size" in table.labels
    assert "Gamma" not in table.labels
    costs = cost_table(read_sweep(made.folder))
    assert costs is not None
    assert "2 of 3 trials trained together with others" in "\n".join(costs.notes)


def test_costs_of_several_devices_are_not_compared(builder) -> None:
    made = builder()
    made.stage("methods", "methods")
    for number, device in enumerate(("cpu, 1 thread(s)", "NVIDIA H100"), start=1):
        spec = make_spec(method={"kind": "base"}, model=f"m{number}")
        made.done(trial_id(number), device, spec, make_scores(3.0))
        rewrite(made, trial_id(number), "provenance", device=device)
    table = cost_table(read_sweep(made.finish()))
    assert table is not None
    assert "cpu, 1 thread(s); NVIDIA H100. Compare within a device." in table.notes[1]


def test_a_sweep_of_one_method_has_no_table_of_costs(builder) -> None:
    made = builder()
    made.stage("parameters", "parameters")
    made.done(trial_id(1), "a", make_spec(), make_scores(9.0))
    assert cost_table(read_sweep(made.finish())) is None


@pytest.mark.parametrize("privacy", ["redact", "off"])
def test_floors_stand_beside_trials_whatever_is_shown_of_their_corpus(
    builder, privacy: str
) -> None:
    made = builder()
    made.stage("methods", "methods")
    spec = make_spec(method={"kind": "base"})
    spec["corpus"]["privacy"] = privacy
    made.done(trial_id(1), "base", spec, make_scores(3.0))
    folder = made.finish()
    parts = {"loader": "v1", "corpus": {"corpus": "sample", "columns": None}}
    entry = {
        "key": f"echo {json.dumps(parts)}",
        "floor": "echo",
        "loader": "v1",
        "scores": {"test/rouge1": 8.97},
    }
    other = {**parts, "corpus": {"corpus": "elsewhere", "columns": None}}
    foreign = {**entry, "key": f"echo {json.dumps(other)}", "scores": {"test/rouge1": 1.0}}
    (folder / "floors.json").write_text(json.dumps([entry, foreign]))
    table = evaluation_table(read_sweep(folder))
    assert table is not None
    assert [row.cells[0].value for row in table.rows if row.kind == "floor"] == [8.97]


def test_a_row_has_no_settings_that_its_kind_of_delta_tuning_ignores() -> None:
    everything = {"rank": 8, "alpha": 16.0, "num_virtual_tokens": 16, "bottleneck": 64}

    def shown(peft_type: str) -> set[str]:
        spec = make_spec(method={"kind": "delta", "peft_type": peft_type, **everything})
        return set(effective_fields(spec)) & {"peft_type", *everything}

    assert shown("lora") == {"peft_type", "rank", "alpha"}
    assert shown("prefix") == {"peft_type", "num_virtual_tokens"}
    assert shown("houlsby") == {"peft_type", "bottleneck"}
    assert shown("bitfit") == {"peft_type"}
    assert shown("of tomorrow") == {"peft_type", *everything}
