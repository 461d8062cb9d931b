"""What every test gets: a home of its own, no network beyond this machine, no skips in CI."""

import ipaddress
import json
import os
import pathlib
import signal
import socket
import tempfile

import hypothesis
import pytest

from toolkit import defaults

hypothesis.settings.register_profile("toolkit", deadline=None)  # no test asserts a time: the first call of one may import SciPy
hypothesis.settings.load_profile("toolkit")

# Begun in the background of a shell, Ctrl-C would come to no test, and one waits for it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_CONNECT = socket.socket.connect
PROVIDERS = (
    "TOOLKIT_", "OPENAI_", "OLLAMA_", "LMSTUDIO_", "LM_API", "OPENROUTER_", "NEXT_PUBLIC_", "HF_", "HUGGING", "AZURE_OPENAI_", "CO_API_", "COHERE_",
    "OTEL_", "SENTRY_", "REPLICATE_", "GOOGLE_", "GEMINI_", "GCLOUD_",
)  # fmt: skip
KEPT_VARIABLES = {"TOOLKIT_FORBID_SKIPS"}


@pytest.fixture(autouse=True, scope="session")
def only_this_machine():
    """Refuse sockets beyond loopback: a test that needs the internet is wrong."""

    def connect(sock, address):
        if sock.family in (socket.AF_INET, socket.AF_INET6) and not ipaddress.ip_address(address[0]).is_loopback:
            raise AssertionError(f"a test wants to connect to {address}")
        return REAL_CONNECT(sock, address)

    socket.socket.connect = connect
    yield
    socket.socket.connect = REAL_CONNECT


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """A home for this test alone, and none of the keys of whoever runs it."""
    for name in list(os.environ):
        if name.startswith(PROVIDERS) and name not in KEPT_VARIABLES:
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    monkeypatch.setenv("TOOLKIT_HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging"))
    yield home
    defaults.reset()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Where ``TOOLKIT_FORBID_SKIPS`` is set, a skip or an expected failure is a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("TOOLKIT_FORBID_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is forbidden here: {report.longrepr}"


@pytest.fixture
def exchange():
    """The JSON that the protocol sheets send in an exchange, by its name."""
    folder = pathlib.Path(__file__).parent / "vectors"
    found = {each["name"]: each for path in folder.glob("*.json") for each in json.loads(path.read_text("utf-8"))}
    return lambda name: found[name]["request"]["json"]


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL server for the whole session; each test takes a schema of its own by ``url()``."""
    from servers.postgres import PostgresServer, programs

    if (found := programs()) is None:
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory() as folder:  # not below tmp_path, which an ordinary user can't enter where tests run as root
        with PostgresServer(pathlib.Path(folder), found) as server:
            yield server


@pytest.fixture(params=["sqlite", "postgres"])
def journal_url(request, tmp_path):
    """The address of a journal that does not exist yet, in a file and on a server."""
    if request.param == "sqlite":
        return str(tmp_path / "home" / "journal.sqlite")
    return request.getfixturevalue("postgres_server").url()
