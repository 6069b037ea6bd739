"""Faults in the guards are noticed by their tests; `make mutants` tries all of them."""

import ast

import pytest

from tests import faults, mutants
from tests.equivalent import EQUIVALENT


def changes(source, monkeypatch, tmp_path):
    (tmp_path / "a.py").write_text(source)
    monkeypatch.setattr(faults, "REPOSITORY", tmp_path)
    return [fault.change.partition(": ")[2].partition(" in ")[0] for fault in faults.faults_of("a.py")]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("a = b < 3", ["b < 3 -> b <= 3", "3 -> 4", "3 -> 2"]),
        ("def f(b): return b < 3", ["return b < 3 -> return None", "b < 3 -> b <= 3", "3 -> 4"]),
        ("a = b and c", ["b and c -> c", "b and c -> b"]),
        ("a = not b", ["not b -> b"]),
        ("a = b + c", ["b + c -> b - c"]),
        ("a = b + 'c'", []),
        ("a: 3 = b", []),
        ("def f(): return a, b", ["return (a, b) -> return (b, a)"]),
        ("if a: raise b", ["if a: -> if not a:", "raise b -> pass"]),
        ("check(a)", ["check(a) -> pass"]),
        ("with suppress(a): b = c", ["suppress(a) -> suppress()"]),
        ("try: a = b\nexcept c: d = e", ["except c: -> except c:"]),
    ],
)
def test_faults_of_a_line(source, wanted, monkeypatch, tmp_path):
    assert changes(source, monkeypatch, tmp_path) == wanted


def test_every_fault_is_one():
    module = "deeplabv3/data/formats.py"
    found = faults.faults_of(module)
    assert len(found) > 20
    whole = ast.dump(ast.parse((faults.REPOSITORY / module).read_text()))
    assert all(ast.dump(ast.parse(fault.source)) != whole for fault in found)


@pytest.mark.parametrize("module", mutants.GUARDS)
def test_guards_and_their_tests_are_there(module):
    for path in (module, *mutants.GUARDS[module]):
        assert (faults.REPOSITORY / path).exists(), path
    assert {name for name, _ in EQUIVALENT} <= mutants.GUARDS.keys()
    assert all(EQUIVALENT.values())


def test_test_that_notices_a_fault_and_one_that_does_not(tmp_path, monkeypatch):
    """The whole way, with a module and two tests of its own."""
    (tmp_path / "deeplabv3").mkdir()
    (tmp_path / "tests").mkdir()
    for folder in ("deeplabv3", "tests"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "deeplabv3/guard.py").write_text("def require(a):\n    if a > 3:\n        raise ValueError(a)\n")
    (tmp_path / "tests/test_guard.py").write_text(
        "import pytest\nfrom deeplabv3.guard import require\n"
        "def test_it():\n    require(2)\n    with pytest.raises(ValueError):\n        require(5)\n"
    )
    monkeypatch.setattr(faults, "REPOSITORY", tmp_path)
    monkeypatch.setattr(mutants, "REPOSITORY", tmp_path)
    monkeypatch.setattr(mutants, "GUARDS", {"deeplabv3/guard.py": ("tests/test_guard.py",)})
    found, num_tried = mutants.main([])
    assert num_tried == 4
    assert [line.partition(" in ")[0] for line in found] == [
        "deeplabv3/guard.py: require: a > 3 -> a >= 3",
        "deeplabv3/guard.py: require: 3 -> 4",
    ]


@pytest.mark.slow
def test_nine_of_ten_faults_are_noticed():
    """Some of all, the same every time."""
    unnoticed, num_tried = mutants.main(["--sample", "200"])
    assert num_tried == 200
    assert len(unnoticed) <= (1 - mutants.NEEDED) * num_tried, "\n".join(unnoticed)
