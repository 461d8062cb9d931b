"""Nothing that another user could have written is unpickled or run: the places where objects are read back are named here, with the reason."""

import ast
from pathlib import Path

import pytest

import dashboard
import toolkit

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve"}
CALLS = {"eval", "exec", "compile", "__import__", "read_pickle", "to_pickle"}
LOADERS = {("joblib", "load"), ("yaml", "load"), ("yaml", "unsafe_load"), ("numpy", "load"), ("np", "load"), ("torch", "load")}
JUSTIFIED = {
    # The trained models of the embedded provider: a file that another user owns, or that others may write to, is refused, and the
    # hash in front of it is checked before it is read.
    "toolkit/providers/ngram.py": {"joblib.load"},
}
FILES = sorted(path for package in (toolkit, dashboard) for path in Path(package.__file__).parent.rglob("*.py"))
ROOT = Path(toolkit.__file__).parents[1]


def found_in(tree):
    """The names of what turns bytes or text into objects or code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield node.module
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            yield node.func.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if (owner, node.func.attr) in LOADERS or node.func.attr in ("read_pickle", "to_pickle"):
                yield f"{owner}.{node.func.attr}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_makes_no_object_of_a_file_except_where_that_is_justified(path):
    name = str(path.relative_to(ROOT))
    assert set(found_in(ast.parse(path.read_text("utf-8")))) == JUSTIFIED.get(name, set())


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from pickle import loads", "eval(x)", "exec(x)", "joblib.load(f)", "yaml.load(f)", "pd.read_pickle(f)"],
)
def test_what_is_looked_for_is_found(code):
    assert list(found_in(ast.parse(code)))
