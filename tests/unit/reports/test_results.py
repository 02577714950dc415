import json
from pathlib import Path

import pytest

from reports.results import FailedTrial, PendingTrial, ReportError, TrialResult, read_sweep
from reports.trial_files import Update, read_replies, read_steps, read_updates
from tests.unit.reports.sweep_builder import make_scores, make_spec, trial_id


def test_every_planned_trial_is_done_failed_or_pending(grid: Path) -> None:
    sweep = read_sweep(grid)
    assert (len(sweep.done), len(sweep.failed), len(sweep.pending)) == (18, 2, 2)
    assert sweep.scale == "laptop"
    assert sweep.corpus.sessions == 12
    assert {floor.floor for floor in sweep.floors} == {"echo", "fixed"}
    assert sweep.problems == ()
    assert isinstance(sweep.trials[trial_id(4)], FailedTrial)
    assert isinstance(sweep.trials[trial_id(16)], PendingTrial)


def test_a_trial_of_two_stages_is_one_trial(grid: Path) -> None:
    assert read_sweep(grid).trials[trial_id(9)].stages == ("parameters", "methods")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"id": "tru',
        b"[]",
        b"\xff\xfe",
        b'{"id": "other", "spec": {}, "scores": {}}',
        b"[" * 100_000,
    ],
)
def test_a_broken_result_is_a_problem_and_not_done(own_grid: Path, content: bytes) -> None:
    file = own_grid / "trials" / trial_id(1) / "result.json"
    file.write_bytes(content)
    sweep = read_sweep(own_grid)
    assert isinstance(sweep.trials[trial_id(1)], PendingTrial)
    assert [problem.file for problem in sweep.problems] == [str(file)]
    assert "not done" in str(sweep.problems[0])


def test_scores_that_are_not_numbers_are_refused_and_not_finite_ones_left_out(
    own_grid: Path,
) -> None:
    for number, value in ((1, "12"), (2, float("nan"))):
        file = own_grid / "trials" / trial_id(number) / "result.json"
        record = json.loads(file.read_text())
        record["scores"]["test/meteor"] = value
        file.write_text(json.dumps(record))
    sweep = read_sweep(own_grid)
    assert isinstance(sweep.trials[trial_id(1)], PendingTrial)
    kept = sweep.trials[trial_id(2)]
    assert isinstance(kept, TrialResult)
    assert "test/meteor" not in kept.scores
    assert "test/rouge1" in kept.scores
    assert len(sweep.problems) == 2


def test_a_result_outweighs_a_failure(own_grid: Path) -> None:
    folder = own_grid / "trials" / trial_id(1)
    failure = {"id": trial_id(1), "reason": "worker_lost"}
    (folder / "failure.json").write_text(json.dumps(failure))
    assert isinstance(read_sweep(own_grid).trials[trial_id(1)], TrialResult)
    (folder / "result.json").unlink()
    failed = read_sweep(own_grid).trials[trial_id(1)]
    assert isinstance(failed, FailedTrial)
    assert failed.reason == "worker_lost"


def test_broken_failures_and_floors_are_problems(own_grid: Path) -> None:
    (own_grid / "trials" / trial_id(4) / "failure.json").write_text("{")
    (own_grid / "floors.json").write_text('{"floor": "echo"}')
    sweep = read_sweep(own_grid)
    # As in the sweep, which runs it again.
    assert isinstance(sweep.trials[trial_id(4)], PendingTrial)
    assert sweep.floors == ()
    assert len(sweep.problems) == 2


@pytest.mark.parametrize("plan", [None, "", "{}", '{"name": "x", "stages": [], "trials": [1]}'])
def test_a_sweep_without_a_plan_is_the_users_to_mend(tmp_path: Path, plan: str | None) -> None:
    if plan is not None:
        (tmp_path / "plan.json").write_text(plan)
    with pytest.raises(ReportError, match=r"plan\.json: a sweep's folder must hold its plan"):
        read_sweep(tmp_path)


def test_metrics_that_were_left_out_have_no_score(builder) -> None:
    made = builder()
    made.stage("only", None)
    made.done(trial_id(1), "a", make_spec(), make_scores(5.0, bertscore=False))
    (result,) = read_sweep(made.finish()).done
    assert "test/bertscore_f1" not in result.scores


def test_steps_survive_a_cut_line_and_a_repeated_step(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        "step,epoch,train_loss,valid_loss,learning_rate,grad_norm,seconds\n"
        "1,0.1,3.0,,1e-4,1.0,1.5\n2,0.2,2.5,,1e-4,nan,3\n2,0.2,2.4,,1e-4,1.0,3\n2,0.2,,2.8,,,4\n,"
    )
    first, second = read_steps(tmp_path)
    assert (first.train_loss, first.valid_loss, first.seconds) == (3.0, None, 1.5)
    assert (second.step, second.train_loss, second.valid_loss) == (2, 2.4, 2.8)
    assert (second.grad_norm, second.seconds) == (1.0, 4.0)
    assert read_steps(tmp_path / "none") == ()


UPDATES = "step,reward,kl,Odd name,seconds\n"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("", ()),
        ("2,0.5,1,3,9\n1,-1e-1,0,,\n", ((1, -0.1, 0.0, None, None), (2, 0.5, 1.0, 3.0, 9.0))),
        ("1,0.5,2,,1\n1,0.25\n", ((1, 0.25, 2.0, None, 1.0),)),
        ("1,0.5,1,,1\n2,0.7", ((1, 0.5, 1.0, None, 1.0), (2, 0.7, None, None, None))),
        (
            "1,nan,inf,,\n2,0.5,x,=1+1,-\n",
            (
                (
                    1,
                    None,
                )
                + 3 * (None,),
                (2, 0.5) + 3 * (None,),
            ),
        ),
        (",0.5\nx,0.5\n-1,0.5\n1e300,0.5\nnan,0.5\n", ()),
        ("1,1e200,-1e308,1e99,\n", ((1, None, None, 1e99, None),)),
        ("1,0.5,1,2,3,4,5,6\n", ((1, 0.5, 1.0, 2.0, 3.0),)),
        ("1,0.5\n2," + "9" * 200_000 + "\n3,0.5\n", ((1, 0.5, None, None, None),)),
        ("1,0.5\n\x00\xff\n2,0.7\n", ((1, 0.5, *3 * (None,)), (2, 0.7, *3 * (None,)))),
    ],
)
def test_updates(
    tmp_path: Path, rows: str, expected: tuple[tuple[int | float | None, ...], ...]
) -> None:
    (tmp_path / "rl.csv").write_bytes((UPDATES + rows).encode("latin-1"))
    updates = []
    for step, *values, seconds in expected:
        named = zip(("reward", "kl", "Odd name"), values, strict=True)
        measured = {name: value for name, value in named if value is not None}
        updates.append(Update(int(step or 0), measured, seconds))
    assert read_updates(tmp_path) == tuple(updates)


@pytest.mark.parametrize("name", ["rl.csv", "train.csv"])
def test_logs_elsewhere_are_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "trial").mkdir()
    (tmp_path / name).write_text("step,reward,train_loss\n1,0.5,0.5\n")
    read = {"rl.csv": read_updates, "train.csv": read_steps}[name]
    assert len(read(tmp_path)) == 1
    (tmp_path / "trial" / name).symlink_to(tmp_path / name)
    assert read(tmp_path / "trial") == ()
    (tmp_path / "trial" / name).unlink()
    (tmp_path / "trial" / name).mkdir()
    assert read(tmp_path / "trial") == ()


def test_replies_survive_a_cut_line(tmp_path: Path) -> None:
    (tmp_path / "replies.jsonl").write_text(
        '{"part": "test", "beam": 1, "pair_id": "a:1", "reply": "yes", "rouge1": 0.0}\n{"part": "te'
    )
    (reply,) = read_replies(tmp_path)
    assert (reply.reply, reply.rouge1, reply.act) == ("yes", 0.0, None)
