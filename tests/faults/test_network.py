"""Names that lead nowhere, and a proxy in between."""

import asyncio
import socket

import pytest

from servers.chat_completions import ChatService
from servers.http import Answer, Server, page_answer
from toolkit import AsyncClient, Client
from toolkit.errors import AuthError, ServerError, UnreachableError
from toolkit.wire.retry import NO_RETRY, Retry

MODEL = "openai_compatible/demo-small"
NAME = "http://models.example/v1"
PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def ask_in_a_thread(naps, **options):
    with Client(cache=False, journal=False, sleep=naps.append, **options) as client:
        return client.generate_text(MODEL, "hi")


def ask_on_a_loop(naps, **options):
    async def nap(seconds):
        naps.append(seconds)

    async def main():
        async with AsyncClient(cache=False, journal=False, sleep=nap, **options) as client:
            return await client.generate_text(MODEL, "hi")

    return asyncio.run(main())


@pytest.fixture(params=[ask_in_a_thread, ask_on_a_loop], ids=["threads", "loop"])
def ask(request):
    return request.param


@pytest.fixture
def resolver(monkeypatch):
    """Name look-ups fail with the errors in this list, one after the other, and then lead to this machine."""
    failures, real = [], socket.getaddrinfo

    def look_up(host, *arguments, **options):
        if host != "models.example":
            return real(host, *arguments, **options)
        if failures:
            raise failures.pop(0)
        return real("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return failures


def test_a_name_that_nobody_knows_is_told_with_the_address(ask, resolver):
    resolver += [socket.gaierror(socket.EAI_NONAME, "Name or service not known")]
    with pytest.raises(UnreachableError, match=r"http://models\.example/v1 \(.*not known\)"):
        ask([], base_urls={"openai_compatible": NAME}, retry=NO_RETRY)


def test_a_name_server_that_fails_for_a_moment_is_asked_again(ask, resolver):
    resolver += [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")] * 2
    naps = []
    with ChatService().serve() as server:
        port = server.url.rpartition(":")[2]
        completion = ask(naps, base_urls={"openai_compatible": f"http://models.example:{port}/v1"}, retry=Retry(random=lambda: 0.0))
    assert (completion.attempts, len(naps)) == (3, 2)


@pytest.mark.parametrize("name", ["a" * 64 + ".example", "models..example", "x" * 300])
def test_a_name_that_can_not_be_one_is_told(ask, name):
    with pytest.raises(UnreachableError, match=r"address|can't reach"):
        ask([], base_urls={"openai_compatible": f"http://{name}/v1"}, retry=NO_RETRY)


# --- a proxy in between --------------------------------------------------------------------------------------------------------------


def forward(service):
    """A forward proxy: what it is asked for by its whole address, it gets from the service."""

    def answer(request):
        assert request.path.startswith("http://models.example/")
        return service.good(request)

    return Server(answer)


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_the_proxy_of_the_environment_is_asked_for_the_whole_address(ask, monkeypatch, variable):
    with forward(ChatService()) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        completion = ask([], base_urls={"openai_compatible": NAME})
    assert completion.text
    (request,) = proxy.requests
    assert request.path == "http://models.example/v1/chat/completions"
    assert request.headers["host"] == "models.example"


def test_this_machine_and_the_names_in_no_proxy_are_asked_directly(ask, monkeypatch, resolver):
    with ChatService().serve() as server, forward(ChatService()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "models.example")
        port = server.url.rpartition(":")[2]
        ask([], base_urls={"openai_compatible": f"{server.url}/v1"})
        ask([], base_urls={"openai_compatible": f"http://models.example:{port}/v1"})
    assert (len(server.requests), len(proxy.requests)) == (2, 0)


def test_a_proxy_that_is_down_is_unreachable(ask, monkeypatch):
    with forward(ChatService()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
    with pytest.raises(UnreachableError, match=r"models\.example"):
        ask([], base_urls={"openai_compatible": NAME}, retry=NO_RETRY)


def test_what_a_proxy_says_in_its_pages_is_told(ask, monkeypatch):
    with Server(lambda _request: page_answer("502 Upstream is asleep")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with pytest.raises(ServerError, match="Upstream is asleep"):
            ask([], base_urls={"openai_compatible": NAME}, retry=NO_RETRY)


def test_a_proxy_that_refuses_a_tunnel_is_told_without_its_password(ask, monkeypatch):
    with Server(lambda _request: Answer(407, {"proxy-authenticate": "Basic"}, [b""], framing="length")) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.replace("//", "//me:pass-4711@"))
        with pytest.raises((UnreachableError, AuthError)) as caught:
            ask([], base_urls={"openai_compatible": NAME.replace("http:", "https:")}, retry=NO_RETRY)
    assert [request.method for request in proxy.requests] == ["CONNECT"]
    assert "407" in str(caught.value)
    assert "pass-4711" not in str(caught.value) + repr(caught.value.__cause__)
