"""How inputs are refused through the real command line: exit code 2 and what to mend."""

from __future__ import annotations

from tests.unit.orchestrator.command_line import CommandLine, Finished


def sweep(line: CommandLine, *options: str, space: str = "grid.yaml") -> Finished:
    corpus = () if "--corpus" in options else ("--corpus", "corpus.csv")
    return line.run("sweep", space, "--scale", "laptop", *corpus, *options)


def check_refused(done: Finished, *says: str) -> None:
    """Exit code 2, one line a problem on standard error, nothing on standard output."""
    assert done.code == 2, done
    assert done.out == ""
    assert "Traceback" not in done.err
    assert done.err.strip()
    for text in says:
        assert text in done.err, f"{text!r} is not in\n{done.err}"
