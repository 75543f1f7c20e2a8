"""Style as a test: sizes, banned calls, docstrings, words that have no place in the repository."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tenantdl

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tenantdl"
MODULES = sorted(PACKAGE.rglob("*.py"))
FILES = sorted(
    [
        *MODULES,
        *(ROOT / "tests").rglob("*.py"),
        *(path for path in (ROOT / "scripts").rglob("*") if path.is_file()),
        *ROOT.glob("*.md"),
    ]
)

MODULE_LINES_MAX = 300
FUNCTION_LINES_MAX = 60
# A file may be longer where splitting it would hurt its reader: path, its own bound, and why.
# Entries only ever shrink or go.
LONGER_MODULES: dict[str, int] = {}

BANNED_CALLS = {
    "print": "cli",
    "exit": "cli",
    "quit": "cli",
    "sys.exit": "cli",
    "eval": None,
    "exec": None,
    "input": None,
    "breakpoint": None,
    "os.cpu_count": None,  # ignores affinity and quota: use machine.usable_cores
    "multiprocessing.cpu_count": None,
}
BANNED_IMPORTS = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def long_functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Functions over the bound, docstring not counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            docstring = ast.get_docstring(node, clean=False)
            skipped = (first.end_lineno or first.lineno) - first.lineno + 1 if docstring else 0
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - skipped
            if lines > FUNCTION_LINES_MAX:
                yield node.name, lines


def banned_calls(tree: ast.AST, room: str) -> Iterator[str]:
    """Calls that this room may not make, as `line: name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = ast.unparse(node.func)
            if name in BANNED_CALLS and BANNED_CALLS[name] != room:
                yield f"{node.lineno}: {name}"
            for keyword in node.keywords:
                value = keyword.value
                if keyword.arg == "allow_pickle" and getattr(value, "value", None) is not False:
                    yield f"{node.lineno}: allow_pickle"


def banned_imports(tree: ast.AST) -> Iterator[str]:
    """Imports of anything that runs code when it reads a file or socket."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (f"{node.lineno}: {n}" for n in names if n.split(".")[0] in BANNED_IMPORTS)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_is_tidy(path: Path) -> None:
    tree = _tree(path)
    lines = len(path.read_text().splitlines())
    assert lines <= LONGER_MODULES.get(_name(path), MODULE_LINES_MAX)
    assert dict(long_functions(tree)) == {}
    assert list(banned_calls(tree, _room(path))) == []
    assert list(banned_imports(tree)) == []
    assert not tree.body or ast.get_docstring(tree), "a module says what it is for"


def test_the_checks_themselves_find_things() -> None:
    long = "def f():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX + 1)
    assert dict(long_functions(ast.parse(long))) == {"f": FUNCTION_LINES_MAX + 2}
    code = ast.parse("print(1)\nsys.exit(2)\neval('3')\nnp.load(f, allow_pickle=True)")
    in_cli = ["3: eval", "4: allow_pickle"]
    assert list(banned_calls(code, "cli")) == in_cli
    assert list(banned_calls(code, "sched")) == ["1: print", "2: sys.exit", *in_cli]
    imports = ast.parse("import pickle\nfrom dill import x\nimport numpy")
    assert list(banned_imports(imports)) == ["1: pickle", "2: dill"]


def test_allow_list_has_no_dead_entries() -> None:
    for name, bound in LONGER_MODULES.items():
        lines = len((ROOT / name).read_text().splitlines())
        assert MODULE_LINES_MAX < lines <= bound


def test_no_markers_of_unfinished_work_and_no_foreign_paths() -> None:
    marker = re.compile(r"\b(TODO|FIXME|XXX)\b|/work/|/root/")
    found = [
        f"{_name(path)}:{number}"
        for path in FILES
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marker.search(line)
    ]
    assert found == []


def test_changelog_knows_this_version() -> None:
    assert f"## [{tenantdl.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
