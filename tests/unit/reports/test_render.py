"""Tables in four formats against golden files; REWRITE_GOLDEN=1 writes those anew."""

import csv
import io
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reports.render_csv import render_csv, safe_value
from reports.render_html import render_html
from reports.render_latex import escape_latex, render_latex
from reports.render_markdown import escape_markdown, render_markdown
from reports.results import read_sweep
from reports.table import Table
from reports.tables import cost_table, evaluation_table, parameter_table
from tests.unit.reports.sweep_builder import make_scores, make_spec, trial_id

GOLDEN = Path(__file__).parents[2] / "golden" / "tables"
RENDERERS = {"md": render_markdown, "tex": render_latex, "csv": render_csv, "html": render_html}


@pytest.fixture
def tables(builder) -> dict[str, Table]:
    """Names that every format has to escape, a zero, every state, and a row that the study has."""
    made = builder("a_b & 100% <script>", "laptop")
    made.plan["scale_reason"] = "no GPU & no 'net"
    made.stage("para_meters", "parameters", winner=trial_id(1))
    odd = "=cmd|' /C calc'!A0_&%$#{}~^\\<script>[x]*"
    for seed in (0, 1):
        made.done(
            trial_id(1 + seed),
            f"gpt2-medium_sft_s{seed}",
            make_spec(seed=seed),
            make_scores(10.0 + seed),
            shared_pairs=1,
        )
    made.done(trial_id(3), "zero_&_%", make_spec(model=odd), make_scores(0.0, bertscore=False))
    made.fail(trial_id(4), "failed_<b>_&", make_spec(model="a_b/c_d", loader="v2"), "diverged", "!")
    made.plan_trial(trial_id(5), "pending", make_spec(model="@sum", loader="v2"))
    made.stage("methods", "methods")
    made.done(trial_id(6), "base", make_spec(method={"kind": "base"}), make_scores(0.0))
    made.done(trial_id(7), "x", make_spec(method={"kind": "-1+1", "rank": 1}), make_scores(3.0))
    made.floors(("v1",))
    sweep = read_sweep(made.finish())
    found = (parameter_table(sweep), evaluation_table(sweep), cost_table(sweep))
    return {table.name: table for table in found if table is not None}


@pytest.mark.parametrize("ending", list(RENDERERS))
@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_a_table_is_as_it_was(tables: dict[str, Table], name: str, ending: str) -> None:
    golden = GOLDEN / f"{name}.{ending}"
    rendered = RENDERERS[ending](tables[name])
    if os.environ.get("REWRITE_GOLDEN") == "1":
        golden.write_text(rendered, encoding="utf-8", newline="")
    assert rendered == golden.read_bytes().decode()


def test_csv_keeps_full_precision_and_no_formula(tables: dict[str, Table]) -> None:
    text = render_csv(tables["table1"])
    rows = list(csv.DictReader(io.StringIO(text)))
    first, zero = rows[0], rows[1]
    assert float(first["rouge1_beam2"]) == (10.0 * 0.61 + 11.0 * 0.61) / 2
    assert first["rouge1_beam1_paper"] == "35.504"
    assert first["rouge1_beam1_n"] == "2"
    assert first["Learning rate"] == "0.0001"
    assert first["scale"] == "laptop"
    assert zero["rouge1_beam1"] == "0.0"
    assert zero["bertscore_f1_state"] == "n/a"
    assert zero["bertscore_f1"] == ""
    assert zero["Model"].startswith("'=cmd")
    for row in rows:
        for value in row.values():
            try:
                float(value)
            except ValueError:
                assert not value.startswith(("=", "+", "-", "@"))
    assert [safe_value(v) for v in (-1.5, "-1", "@a", None, "a-b")] == [
        -1.5,
        "'-1",
        "'@a",
        "",
        "a-b",
    ]


def test_html_holds_no_foreign_markup_and_scopes_its_headings(tables: dict[str, Table]) -> None:
    tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            if tag == "th":
                assert dict(attrs).get("scope") in ("col", "row", "colgroup")

    for table in tables.values():
        Reader().feed(render_html(table))
    assert "script" not in tags
    assert "b" not in tags
    assert {"table", "caption", "thead", "tbody"} <= set(tags)


def test_markdown_rows_have_one_width(tables: dict[str, Table]) -> None:
    for table in tables.values():
        lines = [x for x in render_markdown(table).splitlines() if x.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert escape_markdown("a_b|<i>\n*") == r"a\_b\|&lt;i&gt; \*"


def test_latex_escapes_every_special_character() -> None:
    assert escape_latex(r"_&%#${}~^\<>") == (
        r"\_\&\%\#\$\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
        r"\textless{}\textgreater{}"
    )
    assert escape_latex("a--b\n\u4e2d") == "a-{}-b {[}U+4E2D{]}"
    assert escape_latex("1 ± 2 \u2013 [x]*") == r"1 $\pm$ 2 \textendash{} {[}x{]}{*}"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("package", ["booktabs", "booktabs,graphicx"])
def test_latex_compiles(tables: dict[str, Table], tmp_path: Path, package: str) -> None:
    for table in tables.values():
        (tmp_path / f"{table.name}.tex").write_text(render_latex(table), encoding="utf-8")
    inputs = "".join(rf"\input{{{name}.tex}}" for name in tables)
    (tmp_path / "paper.tex").write_text(
        rf"\documentclass{{article}}\usepackage{{{package}}}\begin{{document}}{inputs}\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout[-2000:]
    assert ("Overfull" in run.stdout) == (package == "booktabs")
