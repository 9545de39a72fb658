"""The faces of an examination: lines for a terminal, JSON for programs, and an exit code for both."""

import asyncio
import dataclasses
import io
import itertools
import json
import shutil
import sys
import textwrap
from typing import Final

from streamlimit.connection import MEMORY_URL, connect
from streamlimit.doctor import examine
from streamlimit.findings import Finding, State, worst
from streamlimit.log_lines import one_line
from streamlimit.secret import SecretError, load_secret
from streamlimit.settings import Settings
from streamlimit.user_keys import examine_user

_WIDTH: Final = 100
"""Of lines that go to no terminal; those that do are as wide as that."""


def report(settings: Settings, *, as_json: bool, strict: bool, user_id: str | None = None) -> int:
    """Examine the store, or the keys of one user in it, print what was found, and return the exit code.

    Args:
        settings: As for the service.
        as_json: One JSON object in place of lines for people.
        strict: Warnings count as problems.
        user_id: Whose keys to examine; None for the store itself.

    Returns:
        0 if all is well, 1 if there is a problem.
    """
    return asyncio.run(_report(settings, as_json=as_json, strict=strict, user_id=user_id))


async def _report(settings: Settings, *, as_json: bool, strict: bool, user_id: str | None) -> int:
    findings = [_one_line(finding) for finding in await _examine(settings, user_id)]
    state = worst(findings)
    # Printed here, and not after the event loop, which at its end waits for a name server that does not answer.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal has arrows
    if as_json:
        shown = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"store": settings.store_address, "state": state, "findings": shown}), flush=True)
    else:
        width = shutil.get_terminal_size((_WIDTH, 0)).columns if sys.stdout.isatty() else _WIDTH
        written = lines(findings, max(width, _WIDTH // 2))
        print("\n".join(map(one_line, [settings.store_address, "", *written])), flush=True)
    return int(state == "problem" or (strict and state == "warning"))


async def _examine(settings: Settings, user_id: str | None) -> list[Finding]:
    if settings.redis_url == MEMORY_URL:
        found = "it lives in the process that serves, and ends with it: there is nothing to examine"
        return [Finding("store", "skipped", found, "for anything but a trial take a real one: see --redis-url")]
    client = connect(settings.store_url)
    try:
        if user_id is None:
            findings = await examine(client, settings.rules, settings.key_prefix, _secrets(settings))
        else:
            findings = await examine_user(client, settings.rules, user_id, settings.key_prefix)
    finally:
        await client.aclose()
    if not settings.secrets:
        findings = [_about_secret_of_data_dir(finding, settings) for finding in findings]
    if settings.is_embedded:
        return [_about_embedded(finding) for finding in findings]
    return findings


def _one_line(finding: Finding) -> Finding:
    """Replies of the server stand in it, and names that Sentinels and replicas gave themselves."""
    found, advice, node = map(one_line, (finding.found, finding.advice, finding.node))
    return dataclasses.replace(finding, found=found, advice=advice, node=node)


def _secrets(settings: Settings) -> list[str]:
    """Those of the service, as far as they can be read here."""
    if settings.secrets:
        return settings.secrets
    try:
        return list(filter(None, [load_secret(settings.data_dir)]))
    except (SecretError, OSError):
        return []  # the service says at its start what is wrong with it


def _about_secret_of_data_dir(finding: Finding, settings: Settings) -> Finding:
    """A secret that was merely found here may be that of another deployment."""
    if finding.check == "secret" and finding.state == "problem":
        found = f"{finding.found}; it was read from {settings.data_dir / 'secret'}, which the service may not use"
        advice = f"run this with the DATA_DIR of the service, or {finding.advice}"
        return dataclasses.replace(finding, state="warning", found=found, advice=advice)
    return finding


def _about_embedded(finding: Finding) -> Finding:
    if finding.check == "reachable" and finding.state == "problem":
        advice = "start it with `streamlimit serve`, which runs it, or name a server of your own: --redis-url redis://…"
        return dataclasses.replace(finding, found=f"the embedded store: {finding.found}", advice=advice)
    return finding


def lines(findings: list[Finding], width: int) -> list[str]:
    """What people read: the findings of each server under its name, and a last line that counts."""
    longest = max(len(finding.check) for finding in findings)
    written: list[str] = []
    for node, those in itertools.groupby(findings, key=lambda finding: finding.node):
        if node:
            written += [node]
        for finding in those:
            label = f"{finding.state:<9}{finding.check:<{longest}}  "
            margin = " " * len(label)
            written += _wrapped(finding.found, width, label, margin)
            if finding.advice:
                written += _wrapped(finding.advice, width, f"{margin}→ ", f"{margin}  ")
        written.append("")
    return [*written, _summary(findings)]


def _summary(findings: list[Finding]) -> str:
    nouns: dict[State, str] = {"problem": "problems", "warning": "warnings", "skipped": "skipped"}
    counts = {noun: sum(one.state == state for one in findings) for state, noun in nouns.items()}
    return ", ".join(f"{noun}: {number}" for noun, number in counts.items() if number) or "All is well."


def _wrapped(text: str, width: int, first: str, others: str) -> list[str]:
    # Names of settings and commands stay whole, to be copied.
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False, break_long_words=False
    )
