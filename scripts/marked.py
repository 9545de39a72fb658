"""What scripts write into documents, between two marks."""

from pathlib import Path
from typing import Final

END: Final = "\n<!-- until here -->\n"


def begin(script: str) -> str:
    """The mark where what a script writes begins."""
    return f"<!-- {script} writes this -->\n\n"


def marked(page: str, script: str, text: str) -> str:
    """The page with this text in place of what the script wrote before."""
    before, rest = page.split(begin(script))
    _, after = rest.split(END, 1)
    return before + begin(script) + text + END + after


def between(page: str, script: str) -> str:
    """What the script wrote into the page before."""
    return page.split(begin(script))[1].split(END, 1)[0]


def write_marked(page: Path, script: str, text: str) -> None:
    """Put the text into the file."""
    page.write_text(marked(page.read_text(encoding="utf-8"), script, text), encoding="utf-8")
