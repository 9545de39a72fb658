"""The documents do not lie: the commands in their console blocks are run, and the answers compared."""

import re
import subprocess
from collections.abc import Mapping
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


def check_commands(document: Path, replace: Mapping[str, str], chance: Mapping[str, str] = CHANCE) -> None:
    """Run all commands of a document in one bash, at the root of the project, and compare what they answer.

    Args:
        document: A Markdown file.
        replace: What the document says, such as a port, and what it is here; in commands and answers.
        chance: As CHANCE.
    """

    def here(text: str) -> str:
        return re.sub("|".join(map(re.escape, replace)), lambda match: replace[match[0]], text)

    def without_chance(text: str) -> str:
        for pattern, name in chance.items():
            text = re.sub(pattern, name, text, flags=re.MULTILINE)
        return text.strip()

    found = commands(document)
    script = "".join(f"{here(command)}echo; echo '{_NEXT}'\n" for command, _ in found)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for (command, said), answer in zip(found, done.stdout.split(f"{_NEXT}\n")[:-1], strict=True):
        assert without_chance(answer) == without_chance(here(said)), command
