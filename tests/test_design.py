"""The house stands as docs/design.md says: imports point down, sizes hold, the public names are complete."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deeplabv3
from tests.conftest import REPOSITORY

PACKAGE = Path(deeplabv3.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# From the roof to the ground. A module may import from its own room and from any floor below its own.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"arguments", "exits"},
    {"demo"},
    {"training"},
    {"report", "deployment"},
    {"evaluation"},
    {"serving"},
    {"prediction"},
    {"model"},
    {"data"},
    {"config", "records", "progress", "files", "cores"},
    {"distributed"},
    {"errors", ""},
]


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def floor(module: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room(module) in rooms)


def imports(path: Path) -> list[str]:
    """Modules of this package that a file imports when it runs, in functions too."""
    tree = ast.parse(path.read_text())
    checked_only = [node for node in tree.body if isinstance(node, ast.If)]
    skipped = {id(node) for block in checked_only for node in ast.walk(block)}
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "deeplabv3":
            found.append(node.module)
            if node.module == "deeplabv3":  # its public names are for users; inside, each comes from its room
                assert [alias.name for alias in node.names] == ["__version__"], path
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == "deeplabv3"]
    return found


def test_picture_shows_these_floors():
    picture = (PACKAGE.parent / "docs/images/floors.svg").read_text()
    drawn = [set(names.split(" · ")) for names in re.findall(r'font-weight="bold".*?>(.*?)</text>', picture)]
    assert drawn == [rooms - {""} for rooms in FLOORS[1:]]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    for imported in imports(MODULES[module]):
        same_room = room(imported) == room(module) and room(module) != ""
        assert same_room or floor(imported) > floor(module), f"{module} imports {imported}"


def test_no_import_cycle():
    graph = {module: set(imports(path)) & set(MODULES) for module, path in MODULES.items()}
    while graph:
        leaves = {module for module, targets in graph.items() if not targets & (set(graph) - {module})}
        assert leaves, f"these import each other: {sorted(graph)}"
        graph = {module: targets for module, targets in graph.items() if module not in leaves}


@pytest.mark.parametrize("module", MODULES)
def test_file_fits_in_one_sitting(module):
    assert len(MODULES[module].read_text().splitlines()) <= 350


@pytest.mark.parametrize("module", MODULES)
def test_function_fits_on_one_screen(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= (110 if node.name == "_train" else 50), f"{module}.{node.name} has {length} lines"


def test_public_names_are_sorted_and_real():
    assert deeplabv3.__all__ == sorted(deeplabv3.__all__)
    for name in deeplabv3.__all__:
        assert getattr(deeplabv3, name).__doc__


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = deeplabv3.nothing


@pytest.mark.parametrize("folder", ["benchmarks", "examples", "tests"])
def test_files_beside_the_package_fit_too(folder):
    for path in sorted((REPOSITORY / folder).rglob("*.py")):
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


@pytest.mark.parametrize("words", ["['--help']", "['train', '--help']", "['train', 'a', 'b', '--print_config']"])
def test_help_does_not_import_torch(words):
    code = (
        "import sys\nfrom deeplabv3.cli import main\n"
        f"try: main({words})\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
