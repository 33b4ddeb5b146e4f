"""
What the plugin tells: sections of the reports of tests, evidence in files, a summary.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex

from redock._printed import printable
from redock.cluster import _collect
from redock.errors import last_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import pytest

    from redock.pytest_plugin._session import Managed, RedockSession

__all__ = ["add", "directory_for", "summarize"]

#: How many lines of a log are shown; the files have all of them.
LINES = 30


def add(
    session: RedockSession, name: str, report: pytest.TestReport, used: list[Managed], seed: int
) -> None:
    """
    Add to the report of a test what is known about its clusters.

    :param session: The run.
    :param name: The name of the test.
    :param report: The report.
    :param used: The clusters it used.
    :param seed: The seed of the run.
    """
    options = session.options
    logs = is_wanted(options.logs, report)
    timeline = is_wanted(options.timeline, report)
    again = f"pytest {shlex.quote(name)} --redock-seed={seed}"
    written = []
    for number, managed in enumerate(used):
        dest = directory_for(session.artifacts, name)
        if number:
            dest = os.path.join(dest, managed.cluster.name)
        if logs or timeline:
            try:
                found = _collect.gather(managed.cluster, managed.mark, managed.sizes, logs=logs)
                facts = {"Outcome": report.outcome, "Run": session.run, "Again": again}
                failure = printable(report.longreprtext) if report.failed else ""
                written += found.write(dest, name, facts, failure, logs=logs, timeline=timeline)
                session.config.hook.pytest_redock_collect(cluster=managed.cluster, dest=dest)
                session.collected = True
            except Exception as error:
                # What the test has to say must not be lost for it, whoever's mistake it is.
                report.sections.append(("redock could not collect everything", str(error)))
            else:
                if report.failed:
                    report.sections += sections(managed, found)
    if report.failed:
        report.sections.append(("redock", "\n".join(facts_of(session, again, used, written))))


def is_wanted(when: str, report: pytest.TestReport) -> bool:
    """
    Check whether something is wanted for a test.

    :param when: ``failed``, ``all`` or ``no``.
    :param report: The report of the test.
    :returns: True when it is.
    """
    return when == "all" or (when == "failed" and report.failed)


def directory_for(artifacts: str, name: str) -> str:
    """
    Choose where the evidence of a test goes.

    :param artifacts: The directory for all of them.
    :param name: The name of the test.
    :returns: The pathname of a directory of its own.
    """
    short = re.sub(r"[^\w.-]+", "-", name.replace(".py::", "-")).strip("-.")
    if "[" in name or len(short) > 100:
        short = f"{short[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return os.path.join(artifacts, short)


def sections(managed: Managed, found: _collect.Evidence) -> list[tuple[str, str]]:
    """
    Make sections for the report of a test that failed.

    :param managed: A cluster.
    :param found: What is known about it.
    :returns: Titles and texts.
    """
    made = [
        (f"redock: node {name} printed", last_lines(printed, LINES))
        for name, printed in found.printed.items()
    ]
    made += [
        (f"redock: {name}:{path}", last_lines(text, LINES))
        for (name, path), text in found.written.items()
    ]
    timeline = printable(managed.cluster.timeline.as_text(managed.mark))
    made.append((f"redock: timeline of {managed.cluster.name}", timeline))
    return [(title, text) for title, text in made if text.strip()]


def facts_of(
    session: RedockSession, again: str, used: list[Managed], written: list[str]
) -> list[str]:
    """
    Say how to go on from a test that failed.

    :param session: The run.
    :param again: The command that does it again.
    :param used: The clusters it used.
    :param written: The pathnames of what was collected.
    :returns: Lines.
    """
    lines = [f"again:     {again}"]
    lines += [f"timeline:  file://{path}" for path in written if path.endswith("timeline.html")]
    if written:
        lines.append(
            f"evidence:  {os.path.commonpath([os.path.dirname(each) for each in written])}"
        )
    for managed in used:
        if managed.kept or managed.cluster.keep:
            lines.append(f"kept:      {managed.cluster.name}, as the test left it")
            lines += [f"           ssh {node.ssh_alias}" for node in managed.cluster.nodes]
    return lines


def summarize(
    reporter: pytest.TerminalReporter, run: str, seed: int, told: list[dict[str, Any]]
) -> None:
    """
    Say what became of the clusters of a run.

    :param reporter: Where to say it.
    :param run: The name of the run.
    :param seed: Its seed.
    :param told: What each process of the run has to say.
    """
    kept = {name: aliases for each in told for name, aliases in each["kept"].items()}
    made = sum(each["made"] for each in told)
    able: dict[str, str] = next((e["capabilities"] for e in told if e["capabilities"]), {})
    if not made and not kept and not able:
        return
    if reporter.verbosity >= 0 or kept:
        reporter.section("redock", "-")
    if reporter.verbosity >= 0:
        reporter.line(f"run {run}, --redock-seed={seed}, clusters made: {made}")
        for directory in dict.fromkeys(each["artifacts"] for each in told if each["artifacts"]):
            reporter.line(f"evidence: {directory}")
        if able:
            missing = {name: able[name] for name in able if able[name].startswith("no: ")}
            works = [f"{name} ({able[name]})" for name in able if name not in missing]
            reporter.line(f"faults this engine can make: {', '.join(works) or 'none'}")
            for name, reason in missing.items():
                reporter.line(f"  not {name}: {reason.removeprefix('no: ')}", yellow=True)
    for name, aliases in kept.items():
        reporter.line(f"kept: {name} (redock cluster down {name})", yellow=True)
        for alias in aliases:
            reporter.line(f"  ssh {alias}")
