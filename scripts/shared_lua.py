#!/usr/bin/env python3
"""Copy the blocks in streamlimit/lua/shared/ into the scripts that hold them. Run by scripts/lint.

Lua in Redis has no include, and each script must run by hand with redis-cli --eval. So a function that several scripts
need stands in each of them, between `-- shared: NAME` and `-- end shared`; shared/NAME.lua is its source.
"""

import argparse
import re
import sys
from pathlib import Path

LUA = Path(__file__).parent.parent / "streamlimit" / "lua"
BLOCK = re.compile(r"(?<=^-- shared: )(\w+)\n.*?(?=^-- end shared$)", re.DOTALL | re.MULTILINE)


def with_copies(script: Path) -> str:
    """The script with each block as its source has it.

    Raises:
        FileNotFoundError: A block has no source.
    """
    return BLOCK.sub(
        lambda block: f"{block[1]}\n{(LUA / 'shared' / f'{block[1]}.lua').read_text()}", script.read_text()
    )


def main() -> str | None:
    """Run the command; return what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a copy differs")
    options = parser.parse_args()
    try:
        stale = [script for script in sorted(LUA.glob("*.lua")) if with_copies(script) != script.read_text()]
    except FileNotFoundError as error:
        return f"{error.filename}: a script holds a copy of it, and it does not exist"
    if options.check and stale:
        return f"{', '.join(script.name for script in stale)}: a block differs from lua/shared/: scripts/lint --fix"
    for script in stale:
        script.write_text(with_copies(script))
    return None


if __name__ == "__main__":
    sys.exit(main())
