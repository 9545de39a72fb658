"""The documents do not lie: the commands in their console blocks are run, and the answers compared."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent

CHANCE: Final = {
    r"(?<![\w-])[\w-]{19}(\.[\w-]{16})?(?![\w-])": "ID",
    r"\d{4}-\d\d-\d\dT[0-9:.]+Z": "TIME",
    r'(?<="heartbeat_seconds":)[0-9.]+': "SECONDS",
}
"""What is different each time, as regular expressions, and what stands for it in the comparison."""

_NEXT: Final = "-- next --"


def blocks(document: Path, language: str) -> list[str]:
    """The fenced code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


def commands(document: Path) -> list[tuple[str, str]]:
    """The commands in the console blocks, which follow `$ ` and go on after `> `, each with the answer shown."""
    found: list[tuple[str, str]] = []
    for line in "".join(blocks(document, "console")).splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), ""))
            continue
        command, answer = found.pop()
        if line.startswith("> "):
            found.append((command + line.removeprefix("> "), answer))
        else:
            found.append((command, answer + line))
    return found


def run(script: Sequence[str], replace: Mapping[str, str]) -> list[str]:
    """Run commands in one bash, at the root of the project, and return what each of them answers.

    Args:
        script: The commands.
        replace: What they say, such as a port, and what it is here.
    """
    lines = "".join(f"{_replaced(command, replace)}\necho; echo '{_NEXT}'\n" for command in script)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [answer.strip() for answer in done.stdout.split(f"{_NEXT}\n")[:-1]]


def check_commands(document: Path, replace: Mapping[str, str], chance: Mapping[str, str] = CHANCE) -> None:
    """Run all commands of a document, as `run` does, and compare what they answer with what it shows.

    Args:
        document: A Markdown file.
        replace: As for `run`; in the answers, too.
        chance: As CHANCE.
    """
    found = commands(document)
    answers = run([command for command, _ in found], replace)
    for (command, shown), answer in zip(found, answers, strict=True):
        assert _named(answer, chance) == _named(_replaced(shown, replace).strip(), chance), command


def _replaced(text: str, replace: Mapping[str, str]) -> str:
    return re.sub("|".join(map(re.escape, replace)), lambda match: replace[match[0]], text) if replace else text


def _named(text: str, chance: Mapping[str, str]) -> str:
    for pattern, name in chance.items():
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return text
