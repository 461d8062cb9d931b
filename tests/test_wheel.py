"""The package as strangers get it: what is in the archives, and the wheel alone in a fresh environment.

``WHEEL_EXTRAS=all`` installs the wheel with each extra by itself too (minutes, and hundreds of megabytes); ``WHEEL_EXTRAS=ray,fast`` with some.
"""

import email
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pandas as pd
import pytest

import toolkit

ROOT = pathlib.Path(__file__).parents[1]
UV = pathlib.Path(sys.executable).with_name("uv")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = "model_comparison_toolkit"
NEEDED = {"dask", "dashboard", "fast", "notebook", "otel", "postgres", "prometheus", "ray", "redis", "schema", "sentry", "vertex"}
ALONE = {"prices", "docs", "test"}  # no call needs the first, and none of ours the others
CHOSEN = os.environ.get("WHEEL_EXTRAS") or "redis"
INSTALLED = sorted(NEEDED) if CHOSEN == "all" else CHOSEN.split(",")


def uv(*arguments):
    """Run uv with what it has kept; with the network only where that does not do."""
    for offline in (["--offline"], []):
        done = subprocess.run([UV, *arguments, *offline, "--quiet"], cwd=ROOT, capture_output=True, text=True, timeout=600)
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


def in_git(*where):
    """The files that are in the repository, or about to be."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *where]
    return set(subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The folder with the sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--out-dir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(archives):
    (path,) = archives.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def in_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def in_sdist(archives):
    (path,) = archives.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


class Installed:
    """A fresh environment with the wheel, used from a folder that has nothing of this repository."""

    def __init__(self, folder, wheel, extra=None):
        self.programs, self.elsewhere = folder / "venv" / "bin", folder / "elsewhere"
        self.elsewhere.mkdir()
        uv("venv", "--python", sys.executable, folder / "venv")
        wanted = f"{wheel}[{extra}]" if extra else str(wheel)
        uv("pip", "install", "--python", self.programs / "python", "--constraint", ROOT / "requirements.lock", wanted)
        names = ("PATH", "SSL_CERT_FILE", "LANG")
        self.environment = {name: os.environ[name] for name in names if name in os.environ} | {"TOOLKIT_HOME": str(folder / "home")}

    def run(self, program, *arguments, **how):
        return subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.elsewhere,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            **how,
        )

    def python(self, *arguments):
        done = self.run("python", "-I", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def alone(tmp_path_factory, wheel):
    return Installed(tmp_path_factory.mktemp("alone"), wheel)


@pytest.fixture(scope="module")
def refusals(alone):
    """What each call says that needs an extra which is not there."""
    return alone.python(ROOT / "tests" / "extra_calls.py")


# --- what is in the archives -----------------------------------------------------------------------------------------------


def test_the_wheel_has_every_file_of_the_packages_and_nothing_else(in_wheel):
    assert {name for name in in_wheel if ".dist-info/" not in name} == in_git("toolkit", "dashboard")


@pytest.mark.parametrize(
    "name", ["toolkit/py.typed", "dashboard/py.typed", "toolkit/pricing/table.json", "dashboard/.streamlit/config.toml"]
)
def test_what_is_no_code_is_in_the_wheel_too(in_wheel, name):
    assert name in in_wheel


def test_the_licence_is_in_both_archives(in_wheel, in_sdist):
    assert in_wheel[f"{NAME}-{toolkit.__version__}.dist-info/licenses/LICENSE"].decode() == (ROOT / "LICENSE").read_text()
    assert "LICENSE" in in_sdist


def test_the_version_is_the_same_wherever_it_stands(wheel, in_wheel):
    metadata = email.message_from_bytes(in_wheel[f"{NAME}-{toolkit.__version__}.dist-info/METADATA"])
    assert wheel.name == f"{NAME}-{toolkit.__version__}-py3-none-any.whl"
    assert metadata["Version"] == toolkit.__version__ == PROJECT["version"]


def test_the_metadata_say_what_it_is_what_it_needs_and_which_extras_there_are(in_wheel):
    metadata = email.message_from_bytes(in_wheel[f"{NAME}-{toolkit.__version__}.dist-info/METADATA"])
    assert (metadata["Name"], metadata["License-Expression"], metadata["Requires-Python"]) == ("model-comparison-toolkit", "MIT", ">=3.11")
    assert metadata["Description-Content-Type"] == "text/markdown" and metadata.get_payload().startswith("# ")
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    bare = {re.match(r"[\w-]+", each)[0] for each in metadata.get_all("Requires-Dist") if "extra ==" not in each}
    assert bare == {re.match(r"[\w-]+", each)[0] for each in PROJECT["dependencies"]}


def test_the_command_is_an_entry_point(in_wheel):
    assert "toolkit = toolkit.cli:main" in in_wheel[f"{NAME}-{toolkit.__version__}.dist-info/entry_points.txt"].decode()


def test_the_sdist_has_what_building_testing_and_reading_need(in_sdist):
    assert {name for name in in_git() if not name.startswith(".ci/")} <= in_sdist


# --- the wheel alone -------------------------------------------------------------------------------------------------------


def test_a_model_answers_the_second_time_from_the_cache_and_both_calls_are_in_the_journal(alone):
    found = alone.python(
        "-c",
        """
import json
import toolkit as tk
answers = [tk.generate_text("embedded/ngram-2", "The for statement", max_tokens=8) for _ in range(2)]
calls, setup = tk.monitor.calls(), tk.setup()
print(json.dumps({
    "from": tk.__file__, "version": tk.__version__, "texts": [answer.text for answer in answers], "frame": str(type(calls)),
    "told": [answer.provenance for answer in answers], "kept": calls["provenance"].tolist(), "prices": setup.prices, "next": setup.next_steps,
}))
""",
    )
    assert pathlib.Path(found["from"]).is_relative_to(alone.programs.parent)
    assert found["version"] == toolkit.__version__
    assert found["texts"][0] and found["texts"][0] == found["texts"][1]
    assert found["told"] == found["kept"] == ["live", "replayed"]
    assert found["frame"] == str(pd.DataFrame)
    assert found["prices"]  # the table that is shipped
    steps = "\n".join(found["next"])
    assert [name for name in PROJECT["optional-dependencies"] if name not in ("docs", "test") and f"toolkit[{name}]" not in steps] == []


def test_the_command_asks(alone):
    done = alone.run("toolkit", "ask", "embedded/ngram-2", "The for statement", "--max-tokens", "8")
    assert (done.returncode, bool(done.stdout.strip())) == (0, True), done.stderr


def test_the_doctor_works(alone):
    done = alone.run("toolkit", "doctor", "embedded")
    assert done.returncode == 0 and "embedded" in done.stdout, done.stderr


def test_every_extra_has_a_call_that_needs_it(refusals):
    assert set(refusals) == NEEDED == set(PROJECT["optional-dependencies"]) - ALONE


@pytest.mark.parametrize("extra", sorted(NEEDED))
def test_a_missing_extra_is_named_by_the_call_that_needs_it(refusals, extra):
    by_others = {"dask": "ValueError: .* dask is not installed", "ray": "ModuleNotFoundError: No module named 'ray'"}
    assert re.match(by_others.get(extra, rf"ConfigError: .*pip install 'model-comparison-toolkit\[{extra}\]'"), refusals[extra])


@pytest.mark.parametrize("extra", INSTALLED)
def test_the_wheel_with_one_extra_makes_the_call_that_needs_it(tmp_path, wheel, refusals, extra):
    outcome = Installed(tmp_path, wheel, extra).python(ROOT / "tests" / "extra_calls.py", extra)[extra]
    assert outcome != refusals[extra]
    assert not re.search(r"not installed|No module named|is missing|pip install", outcome)
