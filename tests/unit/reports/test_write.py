import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reports.examples import MOST_EXAMPLES, reply_examples
from reports.page import shown_duration
from reports.results import ReportError, read_sweep
from reports.status import TABLE_NAMES, sweep_status
from reports.tables import PROTOCOLS
from reports.write import write_report
from search_spaces.atomic import write_atomically
from tests.unit.reports.sweep_builder import make_scores, make_spec, trial_id


def digests(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_a_rebuilt_report_is_byte_identical_wherever_it_lies(
    own_grid: Path, tmp_path: Path
) -> None:
    paths = write_report(own_grid)
    before = digests(own_grid / "report")
    assert set(before) == {f.relative_to(own_grid / "report").as_posix() for f in paths.files}
    write_report(own_grid)
    assert digests(own_grid / "report") == before
    elsewhere = shutil.copytree(own_grid, tmp_path / "elsewhere" / "moved")
    shutil.rmtree(elsewhere / "report")
    write_report(elsewhere)
    assert digests(elsewhere / "report") == before


def test_every_table_is_there_in_four_formats(own_grid: Path) -> None:
    paths = write_report(own_grid)
    assert set(paths.tables) == {"table1", "table2", "table3", "table2_chatmgl", "table3_chatmgl"}
    for formats in paths.tables.values():
        assert set(formats) == {"md", "tex", "csv", "html"}
        assert all(file.stat().st_size > 100 for file in formats.values())
    assert {f.name.split(".")[0] for f in paths.figures} == {
        "rouge1_by_learning_rate",
        "rouge1_by_model",
        "rouge1_by_loader",
        "scores_by_method",
        "losses",
    }


def test_figures_of_what_does_not_vary_are_not_made_and_old_ones_go(builder) -> None:
    made = builder()
    made.stage("only", None)
    made.done(trial_id(1), "a", make_spec(), make_scores(4.0))
    made.done(trial_id(2), "b", make_spec(batch_size=2), make_scores(5.0))
    folder = made.finish()
    old = folder / "report" / "figures" / "rouge1_by_loader.svg"
    write_atomically(old, "<svg/>")
    write_atomically(folder / "report" / "table2.md", "old")
    kept = folder / "report" / "notes.txt"
    write_atomically(kept, "mine")
    names = {file.name for file in write_report(folder).figures}
    assert {name for name in names if name.endswith("svg")} == {
        "rouge1_by_batch_size.svg",
        "losses.svg",
    }
    assert not old.exists()
    assert not (folder / "report" / "table2.md").exists()
    assert kept.exists()


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value or "" for name, value in attrs if name == "id"]


def test_the_page_is_one_safe_offline_file(own_grid: Path) -> None:
    text = write_report(own_grid).index.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert [tag for tag, _ in page.tags].count("script") == 1  # ours; none from the data
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    outside = [
        value
        for _, attrs in page.tags
        for name, value in attrs.items()
        if name in ("src", "href", "xlink:href") and value and "//" in value
    ]
    assert outside == []
    assert len(page.ids) == len(set(page.ids))
    targets = {v[1:] for _, a in page.tags if (v := a.get("href")) and v.startswith("#")}
    assert targets <= set(page.ids)
    assert all(a.get("scope") for tag, a in page.tags if tag == "th")
    figures = [a for tag, a in page.tags if tag == "svg"]
    assert len(figures) == 5
    assert all(a["role"] == "img" and a["aria-labelledby"] in page.ids for a in figures)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert str(own_grid) not in text


def test_the_page_says_where_the_sweep_stands(own_grid: Path) -> None:
    (own_grid / "trials" / trial_id(1) / "result.json").write_text("{")
    text = write_report(own_grid).index.read_text(encoding="utf-8")
    assert "Laptop scale" in text
    assert re.search(r"17<small> of 22", text)
    assert "Out of memory" in text
    assert "loss is nan at step 12" in text
    assert f"trials/{trial_id(1)}/result.json: not JSON" in text
    assert "python -m orchestrator sweep paper_grid" in text


def test_replies_are_redacted_and_limited(grid: Path) -> None:
    made = reply_examples(read_sweep(grid))
    examples = made.shown
    assert (made.left_out, "are masked" in made.privacy_note) == (0, True)
    assert 0 < len(examples) <= MOST_EXAMPLES
    assert {example.loader for example in examples} == {"v1", "v2"}
    text = json.dumps([str(example) for example in examples])
    assert "jane.doe@example.com" not in text
    assert "555-123-4567" not in text
    assert "[EMAIL]" in text
    first = next(example for example in examples if example.loader == "v1")
    assert [reply.trial.split(" ")[0] for reply in first.replies] == ["base", "delta", "sft"]


def set_privacy(folder: Path, privacy: str) -> None:
    """As `--set privacy=...` would: the plan says it, the results are those of before."""
    file = folder / "plan.json"
    plan = json.loads(file.read_text(encoding="utf-8"))
    for trial in plan["trials"]:
        trial["spec"]["corpus"] = {**trial["spec"].get("corpus", {}), "privacy": privacy}
    file.write_text(json.dumps(plan), encoding="utf-8")


def test_what_is_dropped_is_counted_on_the_page(own_grid: Path) -> None:
    set_privacy(own_grid, "drop")
    made = reply_examples(read_sweep(own_grid))
    told = json.dumps([str(example) for example in made.shown])
    assert made.shown
    assert "[EMAIL]" not in told
    assert "example.com" not in told
    assert 0 < made.left_out < made.replies
    page = write_report(own_grid).index.read_text(encoding="utf-8")
    assert "leave the whole text out" in page
    assert f"Left out: {made.left_out} of {made.replies} replies" in page
    assert "example.com" not in page


def test_the_page_says_that_the_gate_is_off(own_grid: Path) -> None:
    set_privacy(own_grid, "off")
    page = write_report(own_grid).index.read_text(encoding="utf-8")
    assert "The privacy gate is off" in page
    assert "jane.doe@example.com" in page


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        ("redact", "cannot encode [EMAIL]"),
        ("drop", "[line left out: it holds email]"),
        ("off", "cannot encode jane@example.com"),
    ],
)
def test_failures_are_shown_past_the_gate(own_grid: Path, privacy: str, message: str) -> None:
    set_privacy(own_grid, privacy)
    failed = read_sweep(own_grid).failed[0]
    file = own_grid / "trials" / failed.id / "failure.json"
    failure = json.loads(file.read_text(encoding="utf-8"))
    failure["message"] = "cannot encode jane@example.com"
    failure["traceback"] = "Traceback\nValueError: jane@example.com\n"
    file.write_text(json.dumps(failure), encoding="utf-8")
    again = next(trial for trial in read_sweep(own_grid).failed if trial.id == failed.id)
    assert again.message == message
    assert ("jane" in again.traceback) == (privacy == "off")
    assert message in json.dumps(sweep_status(own_grid)["failures"])
    page = write_report(own_grid).index.read_text(encoding="utf-8")
    assert ("jane@example.com" in page) == (privacy == "off")


def test_a_sweep_with_nothing_done_has_a_report(builder) -> None:
    made = builder("odd <name> & co")
    made.stage("parameters", "parameters")
    made.plan_trial(trial_id(1), "a", make_spec())
    paths = write_report(made.finish())
    assert "pending" in paths.tables["table1"]["md"].read_text()
    assert paths.figures == ()
    assert "odd &lt;name&gt; &amp; co" in paths.index.read_text()


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deep" / "a.txt"
    write_atomically(file, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert [f.name for f in file.parent.iterdir()] == ["a.txt"]


def test_durations() -> None:
    assert [shown_duration(s) for s in (42, 720, 11_100, 190_000)] == [
        "42 s", "12 min", "3 h 05 min", "2 d 4 h",
    ]  # fmt: skip


def test_status_comes_from_the_files(own_grid: Path) -> None:
    (own_grid / "status.json").write_text('{"trials": {"done": 99}}')
    status = sweep_status(own_grid)
    assert list(status) == ["sweep", "trials", "failures", "tables", "tracking"]
    assert status["sweep"] == "paper_grid"
    assert status["trials"] == {
        "total": 22,
        "done": 18,
        "failed": 2,
        "stopped_early": 0,
        "pending": 2,
    }
    assert status["failures"][0] == {
        "id": trial_id(4),
        "name": "laptop-medium_sft_v2_lr1e-04_bs1_s1",
        "reason": "diverged",
        "message": "loss is nan at step 12; try a smaller learning rate",
    }
    assert status["tables"] == {}
    write_report(own_grid)
    tables = sweep_status(own_grid)["tables"]
    assert tables["table1"]["md"] == str(own_grid / "report" / "table1.md")
    assert set(tables) <= set(TABLE_NAMES)
    assert len(TABLE_NAMES) == 3 * len(PROTOCOLS)
    json.dumps(status)
    with pytest.raises(ReportError):
        sweep_status(own_grid / "trials")
