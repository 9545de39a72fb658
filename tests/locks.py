"""What the files of locked requirements name."""

import re

from packaging.requirements import Requirement

from tests.documents import ROOT


def pinned(lock: str) -> dict[str, Requirement]:
    """The requirements of a lock by name, without their hashes and comments."""
    lines = re.findall(r"^([a-z].*?) \\$", (ROOT / lock).read_text(), re.MULTILINE)
    return {requirement.name: requirement for requirement in map(Requirement, lines)}
