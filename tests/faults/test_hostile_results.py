"""Results folders that somebody prepared: what is read from them, shown and written stays harmless."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reports.render_latex import escape_latex
from tests.faults.hostile import check_printable, check_refused, nothing_written
from tests.unit.orchestrator.command_line import CommandLine
from tests.unit.reports.sweep_builder import SweepBuilder, make_scores, make_spec, trial_id

PAYLOADS = (
    "<script>document.title='PWNED'</script>",
    "<img src=x onerror=\"document.title='PWNED'\">",
    "\"' autofocus onfocus=document.title='PWNED' x='",
    "</script></style></title></svg><svg onload=document.title='PWNED'>",
    "--!><!--]]>&lt;script&gt;",
    "[x](javascript:alert(1)) ![x](http://evil/?a) | `code` **b** ~~s~~ <http://evil>",
    "{{ 7*7 }}{% for x in y %}{{ config }}",
    "\\input{/etc/passwd}\\write18{touch canary}^^5cinput{x}%$x_1$\\\\[1]{}~&#",
    "\\end{table*}\\end{document}",
    "$\\frac{1}$ $x^{",
    "=cmd|' /C calc'!A0",
    "+1+cmd",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    " =1+1",
    "a;=1+1\n=2",
    "\uff1d1+1",
    '","=1+1","',
    "\x1b[2J\x1b]0;title\x07\x9b31m\b\b\x7f",
    "a\u202egnp.exe\u2066\ufeff\u2028\u2029",
    "line\nerror: forged\r\nline",
    "\ud800 half",
    "\U000e0041\U000e0042 tags",
    "\x00 NUL \x0b\x0c\x1c",
    "m" * 5000,
)
"""What a name, a message or a reply may hold."""


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    return CommandLine(tmp_path, monkeypatch, capsys)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds, and most of what follows is not about them."""
    monkeypatch.setattr("reports.write.sweep_figures", lambda _: ())


def hostile_sweep(folder: Path, payloads: Sequence[str] = ("x",)) -> Path:
    """A sweep whose every text is a payload: its own, and those of done, failed and pending trials."""
    everything = " ".join(payloads)
    builder = SweepBuilder(folder, everything, "laptop")
    builder.plan["scale_reason"] = builder.plan["command"] = everything
    builder.plan["corpus"] |= dict.fromkeys(("source", "format", "content_hash"), everything)
    builder.stage(everything, "parameters", winner=trial_id(100))
    for number, payload in enumerate(payloads):
        for step, loader in enumerate(("v1", payload)):
            spec = make_spec(model=payload, loader=loader)
            name = trial_id(100 + 10 * number + step)
            builder.done(name, payload, spec, make_scores(3.0), identical_replies=2)
        spec = make_spec(model=payload)
        builder.fail(trial_id(103 + 10 * number), payload, spec, payload, payload)
    builder.plan_trial(trial_id(4), everything, make_spec(model=everything))
    builder.stage("methods", "methods", **{"from": {"stage": everything, "best": everything}})
    for number, payload in enumerate(payloads):
        method = {"kind": "delta", "peft_type": payload}
        name = trial_id(105 + 10 * number)
        builder.done(name, payload, make_spec(method=method), make_scores(2.0))
        spec = make_spec(method={"kind": payload})
        builder.done(trial_id(106 + 10 * number), payload, spec, make_scores(1.0))
    builder.floors(("v1", payloads[0]))
    for file in folder.glob("trials/*/replies.jsonl"):
        record = json.loads(file.read_text().splitlines()[0])
        payload = json.loads((file.parent / "result.json").read_text())["name"]
        record |= dict.fromkeys(("pair_id", "prompt", "reference", "reply", "act"), payload)
        file.write_text(json.dumps(record) + "\n")
    for file in folder.glob("trials/*/result.json"):
        result = json.loads(file.read_text())
        result["provenance"] |= {"device": everything, "packages": {everything: everything}}
        file.write_text(json.dumps(result))
    (folder / "plan.json").write_text(json.dumps(builder.plan))
    for name in ("env.txt", "sweep.yaml"):
        (folder / name).write_text(everything, errors="replace")
    return folder


def test_a_report_shows_names_and_obeys_none(line: CommandLine) -> None:
    folder = hostile_sweep(line.folder / "given", PAYLOADS)
    done = line.run("report", "given")
    assert (done.code, done.err) == (0, "")
    check_printable(done)
    check_printable(line.run("status", "given"))
    status = line.run("status", "given", "--json")
    check_printable(status)
    assert [failure["name"] for failure in status.json["failures"]] == list(PAYLOADS)
    report = folder / "report"
    drawn = [file.read_text() for file in report.glob("figures/*.svg")]
    assert any("+1+cmd" in svg and r"$\frac{1}$ $x^{" in svg for svg in drawn), "as it is written"
    for file in sorted(report.rglob("*")):
        if file.suffix in (".md", ".tex", ".csv", ".html", ".svg"):
            text = file.read_bytes().decode()  # UTF-8, whole.
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text)
    for file in (report / "index.html", *report.glob("*.html")):
        check_html(file.read_text())
    for file in report.glob("*.csv"):
        check_csv(file.read_text())
    for file in report.glob("*.md"):
        check_markdown(file.read_text())
    for file in report.glob("*.tex"):
        assert not re.search(r"\\(input|write|end\{document|catcode)|\^\^", file.read_text())


def check_html(text: str) -> None:
    """The page's own elements and attributes alone."""
    scripts: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("img", "iframe", "object", "embed", "form", "base", "foreignobject")
            if tag == "script":
                scripts.append(tag)
            for name, value in attrs:
                assert not name.startswith("on"), (tag, name)
                assert not str(value).strip().lower().startswith(("javascript:", "data:"))

    Reader().feed(text)
    assert len(scripts) <= 1
    assert "<title>PWNED" not in text


def check_csv(text: str) -> None:
    """No cell is a formula, wherever a spreadsheet cuts; numbers are numbers."""
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows
    for row in rows:
        for key, value in row.items():
            for piece in re.split(r"[;\t\r\n]", value):
                if not re.fullmatch(r"-?[\d.]+(e-?\d+)?", piece):
                    assert not re.match(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]", piece), (key, value)
        column = "peak_memory_gib" if row["table"].startswith("table3") else "rouge1_beam1"
        if row[f"{column}_state"] == "value":
            float(row[column])


def check_markdown(text: str) -> None:
    """Rows of one width, no tag, no link."""
    rows = [row for row in text.splitlines() if row.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows}) == 1
    assert "<" not in text
    assert not re.search(r"(?<!\\)\]\(", text)


def test_the_page_lets_no_other_script_run(line: CommandLine, no_figures: None) -> None:
    folder = hostile_sweep(line.folder / "given", PAYLOADS[:1])
    assert line.run("report", "given").code == 0
    page = (folder / "report/index.html").read_text()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src 'none'" in policy
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_every_character_can_stand_in_latex(tmp_path: Path) -> None:
    ranges = (range(0x250), range(0x2000, 0x2070), range(0xD7F0, 0xE010), (0x1F600, 0xE0041))
    shown = [f"a{escape_latex(chr(code))}b\\par" for codes in ranges for code in codes]
    shown += [f"{escape_latex(payload[:99])}\\par" for payload in PAYLOADS]
    text = "\n".join(shown)
    (tmp_path / "a.tex").write_text(
        f"\\documentclass{{article}}\\begin{{document}}\n{text}\n\\end{{document}}"
    )
    command = ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout[-2000:]
    assert not (tmp_path / "canary").exists()


ESCAPES = (
    "../../etc",
    "..",
    ".",
    "/etc",
    "a/b",
    "a\\b",
    "~",
    "x\0y",
    "\x1b[2J",
    "*",
    "x" * 300,
    "",
)


@pytest.mark.parametrize("command", ["status", "report"])
@pytest.mark.parametrize("identity", ESCAPES, ids=lambda identity: ascii(identity)[:20])
def test_a_trial_leads_nowhere_else(line: CommandLine, command: str, identity: str) -> None:
    builder = SweepBuilder(line.folder / "given")
    builder.stage("first", None)
    builder.plan["trials"] = [{"id": identity, "name": "x", "stage": "first", "spec": make_spec()}]
    builder.finish()
    with nothing_written(line.folder):
        check_refused(
            line.run(command, "given"), "given/plan.json", "`id`" if not identity else "id"
        )


Spoil = Callable[[Path, Path], Any]
LINKS: dict[str, Spoil] = {
    "environment": lambda folder, secret: (folder / "env.txt").symlink_to(secret),
    "search space": lambda folder, secret: relink(folder / "sweep.yaml", secret),
    "replies": lambda folder, secret: relink(
        folder / "trials" / trial_id(105) / "replies.jsonl", secret
    ),
    "result": lambda folder, secret: relink(
        folder / "trials" / trial_id(105) / "result.json", secret
    ),
    "failure": lambda folder, secret: relink(
        folder / "trials" / trial_id(103) / "failure.json", secret
    ),
}


def relink(file: Path, target: Path) -> None:
    file.unlink()
    file.symlink_to(target)


@pytest.mark.parametrize("name", LINKS)
def test_a_link_to_elsewhere_is_not_read(line: CommandLine, no_figures: None, name: str) -> None:
    folder = hostile_sweep(line.folder / "given")
    (folder / "env.txt").unlink()
    record = {"id": trial_id(105), "part": "test", "beam": 1, "pair_id": "p", "prompt": "OTTILIE"}
    record |= {"spec": make_spec(model="OTTILIE"), "scores": {}, "message": "OTTILIE"}
    secret = line.write("elsewhere/secret", json.dumps(record))
    LINKS[name](folder, secret)
    assert line.run("report", "given").code == 0
    for file in (folder / "report").rglob("*.*"):
        assert b"OTTILIE" not in file.read_bytes()
    assert "OTTILIE" not in line.run("status", "given").out


@pytest.mark.parametrize("place", ["report", "report/figures"])
def test_a_report_is_not_written_elsewhere(line: CommandLine, place: str) -> None:
    folder = hostile_sweep(line.folder / "given")
    line.write("elsewhere/table1.csv", "mine")
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).symlink_to(line.folder / "elsewhere", target_is_directory=True)
    with nothing_written(line.folder):
        check_refused(line.run("report", "given"), f"given/{place}: must not be a link")


TORN: dict[str, bytes] = {
    "nested too deeply": b'{"a": ' + b"[" * 100_000,
    "5,000 digits": b'{"scores": ' + b"9" * 5000 + b"}",
    "not UTF-8": b'{"a": "\xff"}',
    "NUL": b"\0" * 100,
}


@pytest.mark.parametrize("name", TORN)
@pytest.mark.parametrize("file", ["plan.json", "floors.json", "result.json", "replies.jsonl"])
def test_json_that_is_none_is_told(
    line: CommandLine, no_figures: None, file: str, name: str
) -> None:
    folder = hostile_sweep(line.folder / "given")
    inside = "" if file in ("plan.json", "floors.json") else f"trials/{trial_id(105)}/"
    (folder / f"{inside}{file}").write_bytes(TORN[name])
    done = line.run("report", "given")
    if file == "plan.json":
        check_refused(done, "given/plan.json: a sweep's folder must hold its plan: not ")
        return
    assert (done.code, done.err) == (0, "")
    told = (folder / "report/index.html").read_text()
    assert file == "replies.jsonl" or f"{inside}{file}: not " in told


@pytest.mark.parametrize("value", ["1e999", "NaN", "-Infinity", "9" * 400])
def test_a_score_beyond_numbers_is_told(line: CommandLine, no_figures: None, value: str) -> None:
    folder = hostile_sweep(line.folder / "given")
    file = folder / "trials" / trial_id(105) / "result.json"
    file.write_text(
        file.read_text().replace('"test/rouge1_beam1": 2.0', f'"test/rouge1_beam1": {value}')
    )
    assert line.run("report", "given").code == 0
    assert "a score must be finite" in (folder / "report/index.html").read_text()
