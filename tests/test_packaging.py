"""What a stranger installs: pins in step, a light import, a clean tree."""

import json
import pathlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HEAVY = {
    "numpy",
    "pandas",
    "polars",
    "plotly",
    "joblib",
    "scipy",
    "streamlit",
    "ipywidgets",
    "IPython",
    "opentelemetry",
    "sentry_sdk",
    "prometheus_client",
}


def names(requirements):
    found = (re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements)
    return {name for name in found if name != PROJECT["name"]}


def pins(lines):
    """Name to the versions pinned for it; a universal lock can hold one for each Python."""
    found = {}
    for line in lines:
        if match := re.match(r"([\w.-]+)(?:\[.*\])?==([^\s;]+)", line.strip()):
            found.setdefault(match[1].lower(), set()).add(match[2])
    return found


LOCKED = pins((ROOT / "requirements.lock").read_text().splitlines())


def conda():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    return environment, [d for d in environment if isinstance(d, str)] + next(d["pip"] for d in environment if isinstance(d, dict))


def test_the_lock_pins_every_dependency():
    extras = PROJECT["optional-dependencies"]
    assert names(PROJECT["dependencies"]) | {name for extra in extras.values() for name in names(extra)} <= set(LOCKED)


def brought_along(names, seen):
    """The names of what is installed with some requirements, and with what those require."""
    for name, extras in names:
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            required = [Requirement(each) for each in metadata.requires(name) or ()]
        except metadata.PackageNotFoundError:  # for another system or another Python
            continue
        environments = [{"extra": extra} for extra in extras or ("",)]
        wanted = [each for each in required if each.marker is None or any(map(each.marker.evaluate, environments))]
        brought_along([(each.name, tuple(sorted(each.extras))) for each in wanted], seen)
    return {re.sub(r"[-_.]+", "-", name).lower() for name, _ in seen}


def test_the_lock_pins_what_dependencies_bring_along_too():
    found = brought_along([(PROJECT["name"], ("docs", "test"))], set()) - {PROJECT["name"]}
    assert len(found) > 150
    assert found <= {re.sub(r"[-_.]+", "-", name) for name in LOCKED}


def test_the_rules_about_security_hold_in_all_of_the_toolkit_and_the_dashboard():
    """Ruff's S rules are those of bandit."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in rules["select"]
    assert {rule for rule in rules["ignore"] if re.match(r"S\d", rule)} == {"S101", "S311"}, "asserts, and random for jitter"
    assert not [path for path in rules["per-file-ignores"] if path.startswith(("toolkit", "dashboard", "**", "*"))]


def test_an_exception_from_a_rule_about_security_names_the_rule_and_the_reason():
    modules = [path for package in ("toolkit", "dashboard") for path in (ROOT / package).rglob("*.py")]
    excepted = [found[1] for path in modules for found in re.finditer(r"# (?:ruff: )?noqa(.*)", path.read_text("utf-8"))]
    assert len(excepted) > 50
    assert not [said for said in excepted if not re.match(r": [A-Z]+\d+", said)]
    assert not [said for said in excepted if re.match(r": S\d+", said) and not re.match(r": S\d+ - \w+", said)]


def test_environment_yml_and_the_lock_are_in_step():
    _, listed = conda()
    for name, versions in pins(listed).items():
        assert versions <= LOCKED[name], f"{name} is {versions} in environment.yml and {LOCKED[name]} in requirements.lock"


def test_environment_yml_has_everything_that_runs_and_tests_need():
    _, listed = conda()
    extras = PROJECT["optional-dependencies"]
    needed = names(PROJECT["dependencies"]) | {name for extra in ("dashboard", "notebook", "fast", "test") for name in names(extras[extra])}
    assert needed <= set(pins(listed))


def test_environment_yml_takes_conda_packages_from_conda_forge_alone():
    assert yaml.safe_load((ROOT / "environment.yml").read_text())["channels"] == ["conda-forge"]


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_toolkit_brings_nothing_heavy_and_starts_nothing():
    loaded, threads = json.loads(
        run_python("import toolkit, sys, threading, json; print(json.dumps([list(sys.modules), threading.active_count()]))")
    )
    assert not HEAVY & {name.partition(".")[0] for name in loaded}
    assert threads == 1


def test_asking_a_model_brings_no_frames_and_no_plots():
    code = "import toolkit as tk, sys, json; tk.generate_text('scripted/echo', 'x'); print(json.dumps(list(sys.modules)))"
    assert not HEAVY & {name.partition(".")[0] for name in json.loads(run_python(code))}


def test_every_public_name_is_there_and_described():
    import toolkit as tk

    assert tk.__all__ == sorted(tk.__all__)
    for name in tk.__all__:
        assert getattr(tk, name).__doc__, f"tk.{name} has no docstring"


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"])
def test_the_project_tells_about_itself(name):
    assert (ROOT / name).read_text().strip()


def test_no_registry_and_no_machine_is_named():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    texts = {path: (ROOT / path).read_text(errors="replace") for path in listed if (ROOT / path).is_file()}
    pattern = re.compile(r"pypi\.org|pythonhosted|registry\.npmjs|deb\.debian|/(root|home/\w+|work)/")
    allowed = {"tests/test_packaging.py", "tests/test_notebooks.py"}
    assert [path for path, text in texts.items() if pattern.search(text) and path not in allowed] == []
