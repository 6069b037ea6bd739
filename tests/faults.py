"""Faults that are put into a module, one changed place at a time, for `tests.mutants`.

A comparison, an operand that is left out, a number one more, a `raise` or a call that is gone, another return value.
Words of messages are left alone.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parent.parent

_OTHER_COMPARISON: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OTHER_OPERATOR: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.MatMult: ast.Mult,
}  # fmt: skip
_ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_WITHOUT_FAULTS = ("annotation", "returns", "decorator_list", "format_spec")


class Fault(NamedTuple):
    """One changed place.

    Attributes:
        module: The file.
        lines: Those of the module of which a test must reach one to notice it; none where any test may.
        change: The function, what was there, what is there now, and in which statement.
        source: The whole changed file.
    """

    module: str
    lines: frozenset[int]
    change: str
    source: str


def faults_of(module: str) -> list[Fault]:
    """All faults of a module."""
    tree = ast.parse((REPOSITORY / module).read_text())
    faults = []
    for parent, name, index, statement, function in _places(tree, None, ""):
        node = getattr(parent, name) if index is None else getattr(parent, name)[index]
        for other in _alternatives(node, is_limit=not function):
            _put(parent, name, index, other)
            source = ast.unparse(ast.fix_missing_locations(tree))
            _put(parent, name, index, node)
            change = f"{function or 'module'}: {_in_a_line(node)} -> {_in_a_line(other)} in {_in_a_line(statement)}"
            lines = _head(statement) if function else _users(tree, statement)
            faults.append(Fault(module, frozenset(lines), change, source))
    return faults


def _places(
    parent: ast.AST, statement: ast.stmt | ast.ExceptHandler | None, function: str
) -> Iterator[tuple[ast.AST, str, int | None, ast.stmt | ast.ExceptHandler, str]]:
    """Every node as a field of its parent, with the statement and the function that it is in."""
    for name, value in ast.iter_fields(parent):
        if name in _WITHOUT_FAULTS:
            continue
        inside = parent.name if isinstance(parent, ast.FunctionDef) and name == "body" else function
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(node, ast.AST):
                own = node if isinstance(node, (ast.stmt, ast.ExceptHandler)) else statement
                if own is not None:
                    yield parent, name, index, own, inside
                yield from _places(node, own, inside)


def _alternatives(node: ast.AST, *, is_limit: bool) -> Iterator[ast.AST]:
    """What a node is changed to; of the numbers, those that are no part of a function in both directions."""
    match node:
        case ast.Compare(left, ops, comparators):
            for number, operator in enumerate(ops):
                yield ast.Compare(left, [*ops[:number], _OTHER_COMPARISON[type(operator)](), *ops[number + 1 :]],
                                  comparators)  # fmt: skip
        case ast.BoolOp(operator, values):
            for number in range(len(values)):
                rest = values[:number] + values[number + 1 :]
                yield ast.BoolOp(operator, rest) if len(rest) > 1 else rest[0]
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.BinOp(left, operator, right):
            if not _is_text(left) and not _is_text(right):
                yield ast.BinOp(left, _OTHER_OPERATOR[type(operator)](), right)
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value)):
            yield ast.Constant(value + 1)
            if is_limit:
                yield ast.Constant(value - 1)
        case ast.AugAssign(value=value) if _is_text(value):
            return  # a part of a message
        case ast.Raise() | ast.Continue() | ast.Break() | ast.AugAssign() | ast.Expr(ast.Call()):
            yield ast.Pass()
        case ast.Return(ast.Tuple([first, second])):
            yield ast.Return(ast.Tuple([second, first]))
        case ast.Return(value) if value is not None and not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.ExceptHandler(kind, name, body) if not isinstance(body[-1], ast.Raise | ast.Pass):
            yield ast.ExceptHandler(kind, name, [ast.Pass()])
        case ast.Call(ast.Name("suppress"), [_, *_]):
            yield ast.Call(node.func, [], [])
    if isinstance(node, ast.If | ast.While | ast.IfExp) and not _is_negated_otherwise(node.test):
        parts = {name: value for name, value in ast.iter_fields(node) if name != "test"}
        yield type(node)(test=ast.UnaryOp(ast.Not(), node.test), **parts)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _is_negated_otherwise(test: ast.expr) -> bool:
    """Whether the fault of its operator is that of the negation too."""
    single = isinstance(test, ast.Compare) and len(test.ops) == 1 and not isinstance(test.ops[0], _ORDER)
    return single or (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not))


def _put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def _in_a_line(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(node)).splitlines()[0]


def _head(statement: ast.stmt | ast.ExceptHandler) -> range:
    """The lines of a statement without those of the statements in it."""
    body = getattr(statement, "body", None)
    last = statement.end_lineno or statement.lineno
    return range(statement.lineno, max(statement.lineno, body[0].lineno - 1 if body else last) + 1)


def _users(tree: ast.AST, statement: ast.AST) -> list[int]:
    """The lines of functions that use what a statement of the module defines."""
    names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    functions = [function for function in ast.walk(tree) if isinstance(function, ast.FunctionDef)]
    used = [node for function in functions for node in ast.walk(function) if isinstance(node, ast.Name)]
    return [node.lineno for node in used if node.id in names]
