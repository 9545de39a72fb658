"""Small damage of every kind to a module, as a machine finds it: comparisons, conditions, numbers, steps left out.

It is a second opinion on the list in tests/mutants.py: that has what matters, this has what nobody thought of.
`scripts/mutate.py` runs the tests for both, in its own order and once more where one fails, since some fail by chance
on a busy machine; beside that a walk through the syntax tree suffices.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants import PACKAGE

_COMPARISONS: Final[dict[type[ast.cmpop], str]] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_SUMS: Final[dict[type[ast.operator], str]] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.BitOr: "&",
    ast.BitAnd: "|",
}


@dataclass(frozen=True, slots=True)
class Splice:
    """A piece of a file's text that becomes another one."""

    name: str
    """Without the number of the line, so that it stays the same while others change."""
    where: str
    start: int
    end: int
    new: bytes

    def damage(self, root: Path) -> None:
        """Do it to the package under `root`."""
        path = root / PACKAGE / self.where
        text = path.read_bytes()
        path.write_bytes(text[: self.start] + self.new + text[self.end :])


def generated(root: Path, where: str) -> list[Splice]:
    """All damage to one module of the package under `root`, in the order of its lines."""
    text = (root / PACKAGE / where).read_bytes()
    lines = text.splitlines(keepends=True)
    begins = [0]
    for line in lines:
        begins.append(begins[-1] + len(line))
    found: list[Splice] = []
    names: Counter[str] = Counter()
    for first, last, new in sorted(set(_damages(ast.parse(text)))):
        start, end = (begins[line - 1] + column for line, column in (first, last))
        old = " ".join(text[start:end].decode().split())
        shown = old if len(old) < 60 else f"{old[:57]}..."
        name = f"{where}: `{lines[first[0] - 1].decode().strip()}`: {shown} becomes {new}"
        names[name] += 1
        number = f" ({names[name]})" if names[name] > 1 else ""
        found.append(Splice(f"{name}{number}", where, start, end, new.encode()))
    return found


_Place = tuple[int, int]
_Damage = tuple[_Place, _Place, str]


def _damages(tree: ast.Module) -> Iterator[_Damage]:
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        # Types, decorators and the texts of errors are not what a promise hangs on.
        skipped = {id(getattr(node, name, None)) for name in ("annotation", "returns", "cause")}
        skipped |= {id(one) for one in getattr(node, "decorator_list", ())}
        if isinstance(node, ast.Raise | ast.JoinedStr):
            yield from _of(node)
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        todo += [child for child in ast.iter_child_nodes(node) if id(child) not in skipped]
        yield from _of(node)


def _of(node: ast.AST) -> Iterator[_Damage]:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            yield _whole(node, f"({_text(left)} {_COMPARISONS[type(op)]} {_text(right)})")
        case ast.BoolOp(op=op, values=values):
            yield _whole(node, f"({(' or ' if isinstance(op, ast.And) else ' and ').join(map(_text, values))})")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _SUMS and not _is_text(left):
            yield _whole(node, f"({_text(left)} {_SUMS[type(op)]} {_text(right)})")
        case ast.Constant(value=bool() as value):
            yield _whole(node, str(not value))
        case ast.Constant(value=int() | float() as value):
            yield _whole(node, str(value + 1))
        case (
            ast.Expr(value=ast.Call() | ast.Await())
            | ast.Assign(targets=[ast.Attribute() | ast.Subscript()])
            | ast.AugAssign()
            | ast.Raise()
            | ast.Delete()
            | ast.Break()
            | ast.Continue()
        ):
            yield _whole(node, "pass")
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if not isinstance(test, ast.Compare):
            yield _whole(test, f"(not {_text(test)})")


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _whole(node: ast.expr | ast.stmt, new: str) -> _Damage:
    return (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0), new
