"""A module may import only from its own package and from rows above its own."""

import ast
import pathlib

import pytest

ROWS = [
    {"render", "hints", "rates", "files"},
    {"errors", "types"},
    {"settings", "keys", "stats", "pricing", "schemas"},
    {"wire", "cache", "monitor", "charts"},
    {"providers"},
    {"timing", "transports", "routing", "watching"},
    {"call"},
    {"drive"},
    {"client", "widgets"},
    {"comparison", "doctor"},
    {"installation"},
    {"defaults", "testing", "journal_commands"},
    {"cli"},
]
RANK = {name: i for i, row in enumerate(ROWS) for name in row}
ROOT = pathlib.Path(__file__).parents[1]
DASHBOARD_MAY_USE = {"monitor", "charts", "stats", "types", "errors", "settings", "render", "hints"}


def imported(path: pathlib.Path, root: pathlib.Path) -> set[str]:
    """The modules of ``toolkit`` that a file imports, by their first name."""
    package = (root.name, *path.relative_to(root).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            names = (*base, *(node.module.split(".") if node.module else ()))
            if names == ("toolkit",):
                found |= {alias.name for alias in node.names}
            elif names[:1] == ("toolkit",):
                found.add(names[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("toolkit.")}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "toolkit").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_the_rows_above_its_own(path):
    me = path.relative_to(ROOT / "toolkit").parts[0].removesuffix(".py")
    if me == "__init__":
        return
    wrong = {other for other in imported(path, ROOT / "toolkit") if other != me and RANK.get(other, -1) >= RANK[me]}
    assert not wrong, f"{me} (row {RANK[me]}) imports {wrong}"


@pytest.mark.parametrize("path", sorted((ROOT / "dashboard").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_dashboard_can_look_and_never_spend(path):
    assert imported(path, ROOT / "dashboard") <= DASHBOARD_MAY_USE


def test_only_settings_reads_the_environment():
    readers = {p.name for p in (ROOT / "toolkit").rglob("*.py") if "os.environ" in p.read_text() or "getenv" in p.read_text()}
    assert readers == {"settings.py"}
