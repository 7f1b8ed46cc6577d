"""`python -m app doctor`: what is wrong with this server, and what to do about it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from app.cli import COMMON, add_setting_flags
from app.doctor.examining import examine
from app.doctor.findings import Finding, Outcome, worst
from app.settings import TABLE, Settings

NAME_WIDTH = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take how to say it, and every setting: what is looked at is what `serve` would do with the same flags."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    add_setting_flags(parser, [row for row in TABLE if row.name not in COMMON])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print a line a check, beginning with OK, WARN or FAIL, and a last one; return 1 when one failed, else 0."""
    findings = []
    for finding in examine(settings):
        findings.append(finding)
        if not args.json:
            print(_line(finding), flush=True)
    bad = worst(findings)
    if args.json:
        print(json.dumps({"outcome": bad, "checks": [asdict(finding) for finding in findings]}))
    else:
        counts = ", ".join(f"{sum(f.outcome is one for f in findings)} {one}" for one in Outcome)
        print(f"{len(findings)} checks: {counts}")
    return 1 if bad is Outcome.FAIL else 0


def _line(finding: Finding) -> str:
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    return f"{finding.outcome:<5} {finding.name:<{NAME_WIDTH}} {finding.found}{remedy}"
