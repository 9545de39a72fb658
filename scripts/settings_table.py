#!/usr/bin/env python3
"""Write the table of settings into README.md, from the settings themselves. Run by scripts/lint."""

import argparse
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

from marked import marked
from pydantic.fields import FieldInfo

from streamlimit.settings import Settings

README = Path(__file__).parent.parent / "README.md"
MARK = "scripts/settings_table.py"


def table() -> str:
    """The settings as a Markdown table, in the order in which they are declared."""
    rows = ["| name | default | takes | meaning |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        meaning = " ".join(str(field.description).split())
        rows.append(f"| `{name.upper()}` | {default(field)} | {takes(field)} | {meaning} |")
    return "\n".join(rows) + "\n"


def default(field: FieldInfo) -> str:
    """The default as one writes it in the environment; '' for none."""
    value = "" if field.default is None else field.default
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text and "*" not in text else ""


def takes(field: FieldInfo) -> str:
    """What values the setting takes, where its type tells."""
    if field.annotation is bool:
        return "`true`, `false`"
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    bounds = {name: getattr(one, name) for one in field.metadata for name in ("ge", "le") if hasattr(one, name)}
    return " to ".join(str(bounds[name]) for name in ("ge", "le") if name in bounds)


def main() -> str | None:
    """Run the command; return what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the table is out of date")
    options = parser.parse_args()
    readme = README.read_text()
    current = marked(readme, MARK, table())
    if options.check:
        return None if current == readme else "The settings in README.md are not up to date: scripts/lint --fix"
    README.write_text(current)
    return None


if __name__ == "__main__":
    sys.exit(main())
