"""The lab's command line: python -m integration.lab.lab build | run -- COMMAND... | test [PYTEST ARGUMENT...]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from integration.lab import image, stage
from integration.lab.machine import Guest, LabError, Machine, to_streams
from integration.lab.namespaces import Namespaces


def main() -> int:
    """Command line; the exit status: the command's, 124 after a timeout, 125 when the lab itself failed."""
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("build", help="make the image, if it is not there; print its directory")
    run = verbs.add_parser("run", help="run a command in a fresh machine")
    run.add_argument("--project", action="store_true", help="with this working copy installed, in the tests' directory")
    run.add_argument("--stdin", type=Path, help="file that the command reads")
    run.add_argument("command", nargs="+")
    test = verbs.add_parser("test", help="run integration tests of this working copy in a fresh machine")
    test.add_argument("--report", type=Path, help="keep the JUnit document here")
    for verb in (run, test):
        verb.add_argument("--timeout", type=float, default=1200)
        verb.add_argument("--boot", default="", help="boot it with these words for the kernel, instead of restoring it")
        verb.add_argument("--namespaces", action="store_true", help="no machine: systemd in namespaces of the host")
    options, rest = parser.parse_known_args()
    if rest and options.verb != "test":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        built = image.build()
        if options.verb == "build":
            print(built.directory)
            return 0
        with Namespaces(built) if options.namespaces else Machine(built, boot=options.boot) as machine:
            if options.verb == "test":
                return tests(machine, rest, options)
            return command(machine, options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 125


def command(machine: Guest, options: argparse.Namespace) -> int:
    """lab run."""
    if options.project:
        stage.prepare(machine)
    result = machine.run(
        options.command,
        stdin=options.stdin.read_bytes() if options.stdin else b"",
        env=stage.ENVIRONMENT if options.project else {},
        cwd=stage.TESTS if options.project else "/root",
        timeout=options.timeout,
        sink=to_streams,
    )
    if result.status is None:
        print(f"lab: stopped after {options.timeout:g} s", file=sys.stderr)
    return 124 if result.status is None else result.status


def tests(machine: Guest, arguments: list[str], options: argparse.Namespace) -> int:
    """lab test."""
    stage.prepare(machine)
    report = stage.run(machine, arguments or stage.selection(stage.CHOSEN), timeout=options.timeout, sink=to_streams)
    for line in report.lines():
        print(f"lab: {line}", file=sys.stderr)
    if options.report and report.cases:
        options.report.write_bytes(machine.get(stage.REPORT))
    return 124 if report.status is None else report.status


if __name__ == "__main__":
    sys.exit(main())
