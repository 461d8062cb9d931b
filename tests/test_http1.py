"""HTTP/1.1: what the parser makes of bytes, and what our transports do with connections, TLS and time."""

import asyncio
import ssl
import subprocess
import threading
import time

import h11
import httpx
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from servers.chat_completions import ChatService
from servers.http import CUT, Answer, Gate, Server, json_answer, sse
from toolkit import errors
from toolkit.client import AsyncClient, Client
from toolkit.transports import AsyncTransports, ThreadTransports
from toolkit.wire.http1 import ResponseParser, request_bytes
from toolkit.wire.retry import NO_RETRY

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"


def parse(data, cuts=(), method="POST", *, ends=False):
    """Feed data, cut at the places given; the parser and the body."""
    parser, body = ResponseParser(method), b""
    places = [0, *sorted(cuts), len(data)]
    for start, end in zip(places, places[1:]):
        if start < end:
            body += parser.feed(data[start:end])
    if ends:
        parser.end()
    return parser, body


def by_h11(data):
    """The same by the library that httpx uses."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    status, body = None, b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, body


@st.composite
def responses(draw):
    pieces = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    body = b"".join(pieces)
    before = b"HTTP/1.1 100 Continue\r\n\r\n" * draw(st.integers(0, 2))
    status = draw(st.sampled_from([200, 201, 404, 500]))
    head = before + b"HTTP/1.1 %d Why\r\nX-One: a b \r\n" % status
    framing = draw(st.sampled_from(["length", "chunks", "close"]))
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body, framing
    if framing == "close":
        return head + b"\r\n" + body, framing
    extension = draw(st.sampled_from([b"", b";a=b", b" "]))
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces)
    trailers = draw(st.sampled_from([b"", b"X-Sum: 1\r\n"]))
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailers + b"\r\n", framing


@given(responses(), st.data())
def test_a_response_reads_the_same_wherever_it_is_cut_and_as_h11_reads_it(response, data):
    wire, framing = response
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=8))
    parser, body = parse(wire, cuts, ends=framing == "close")
    assert (parser.status, body) == by_h11(wire)
    assert parser.done
    assert parser.reusable is (framing != "close")


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
def test_any_bytes_give_a_response_or_our_error(noise, cuts):
    for start in (b"", HEAD + b"\r\n", HEAD + b"transfer-encoding: chunked\r\n\r\n"):
        try:
            parse(start + noise, [cut for cut in cuts if cut < len(start + noise)], ends=True)
        except httpx.RemoteProtocolError:
            pass


@pytest.mark.parametrize(
    "wire",
    [
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        HEAD + b"no colon\r\n\r\n",
        HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"transfer-encoding: gzip\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n1_0\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nhello\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"1" * 20_000,
        HEAD + b"x: " + b"y" * 200_000,
        HEAD + b"content-length: 5\r\n\r\nhel",
        b"",
    ],
)
def test_what_is_no_whole_http_answer_is_told(wire):
    with pytest.raises(httpx.RemoteProtocolError):
        parse(wire, ends=True)


def test_bytes_that_nobody_asked_for_end_the_connection():
    parser, body = parse(HEAD + b"content-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n")
    assert (parser.done, parser.reusable, body) == (True, False, b"ok")


@pytest.mark.parametrize(("version", "connection", "reusable"), [(b"1", b"close", False), (b"0", b"", False), (b"0", b"Keep-Alive", True)])
def test_a_connection_is_kept_only_where_both_sides_do(version, connection, reusable):
    wire = b"HTTP/1." + version + b" 200 OK\r\nconnection: " + connection + b"\r\ncontent-length: 0\r\n\r\n"
    assert parse(wire)[0].reusable is reusable


def test_a_line_break_in_a_header_is_refused_before_anything_is_sent():
    request = httpx.Request("POST", "http://x/", headers=[(b"authorization", b"Bearer a\r\nx: y")], content=b"")
    with pytest.raises(httpx.LocalProtocolError, match="authorization") as caught:
        request_bytes(request)
    assert "Bearer" not in str(caught.value)


def test_head_and_body_go_out_in_one_piece():
    request = httpx.Request("POST", "http://host:81/v1/x?y=z", headers={"a": "b"}, content=b"body")
    head, _, body = request_bytes(request).partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"POST /v1/x?y=z HTTP/1.1"
    assert b"Host: host:81" in head and b"Content-Length: 4" in head and body == b"body"


# --- connections -----------------------------------------------------------------------------------------------------------


class Threads:
    def __init__(self, **options):
        self.client = Client(cache=False, journal=False, retry=NO_RETRY, **options)

    def models(self, n=1):
        return [self.client.list_models("openai_compatible") for _ in range(n)]


class Loop:
    def __init__(self, **options):
        self.client = AsyncClient(cache=False, journal=False, retry=NO_RETRY, **options)

    def models(self, n=1):
        async def ask():
            return [await self.client.list_models("openai_compatible") for _ in range(n)]

        return asyncio.run(ask())


@pytest.fixture(params=[Threads, Loop])
def asker(request):
    return lambda url, **options: request.param(base_urls={"openai_compatible": url}, **options)


def listing(_request):
    return json_answer({"data": [{"id": "m"}]})


def test_one_connection_serves_many_requests(asker):
    with Server(listing) as server:
        asker(server.url).models(5)
        assert (len(server.requests), server.connections) == (5, 1)


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(asker):
    with Server(lambda _request: json_answer({"data": []}, hang_up=True)) as server:
        asker(server.url).models(4)
        assert (len(server.requests), server.connections) == (4, 4)


def test_an_answer_cut_in_the_middle_is_an_error(asker):
    with Server(lambda _request: Answer(200, {"content-type": "application/json"}, [b'{"da', CUT])) as server:
        with pytest.raises(errors.UnreachableError, match="broke"):
            asker(server.url).models()


def test_nobody_listening_is_told_with_the_address(asker):
    with Server(listing) as server:
        url = server.url
    with pytest.raises(errors.UnreachableError, match=url):
        asker(url).models()


@pytest.mark.parametrize("driver", ["threads", "loop"])
def test_a_silent_server_runs_into_the_time_limit(driver):
    gate = Gate()
    with Server(lambda _request: Answer(200, {}, [b"{}"], before=(gate,))) as server:
        request = httpx.Request("GET", server.url, extensions={"timeout": {"connect": 5, "read": 0.05, "write": 5}})
        try:
            with pytest.raises(httpx.ReadTimeout):
                if driver == "threads":
                    ThreadTransports().get(request.url).transport.handle_request(request)
                else:
                    asyncio.run(over_loop(request))
        finally:
            gate.opened.set()


async def over_loop(request):
    transports = AsyncTransports()
    response = await transports.take(request.url).transport.handle_async_request(request)
    await response.aread()
    await response.aclose()
    await transports.aclose()
    return response


def test_a_reader_slower_than_the_server_makes_it_wait_and_loses_nothing():
    big = b"x" * 200_000

    async def slowly(url):
        transports = AsyncTransports()
        pool = transports.take(httpx.URL(url))
        response = await pool.transport.handle_async_request(httpx.Request("GET", url))
        size, most = 0, 0
        async for piece in response.stream:
            await asyncio.sleep(0.001)
            size += len(piece)
            most = max(most, response.stream._link.waiting_bytes)
        await response.aclose()
        return size, most

    with Server(lambda _request: Answer(200, {}, [big] * 50)) as server:
        size, most = asyncio.run(slowly(server.url))
    assert size == 50 * len(big)
    assert most < 4_000_000


def test_many_calls_at_once_on_a_loop_each_get_their_own_answer():
    def echo(request):
        return json_answer({"data": [{"id": request.headers["x-number"]}]})

    async def ask(url):
        transports = AsyncTransports()

        async def one(number):
            request = httpx.Request("GET", url, headers={"x-number": str(number)})
            pool = transports.take(request.url)
            response = await pool.transport.handle_async_request(request)
            await response.aread()
            await response.aclose()
            transports.give_back(pool)
            return response.json()["data"][0]["id"]

        answers = await asyncio.gather(*(one(number) for number in range(200)))
        await transports.aclose()
        return answers

    with Server(echo) as server:
        assert asyncio.run(ask(server.url)) == [str(number) for number in range(200)]


# --- TLS -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost that signs itself."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", cert, *name],
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.fixture
def tls_url(certificate):
    """A server that speaks TLS and answers every request with a list of one model."""
    import http.server

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = b'{"data": [{"id": "over-tls"}]}'
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_https_works_with_the_certificates_that_the_environment_names(asker, tls_url, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    assert [[model.id for model in models] for models in asker(tls_url).models(2)] == [["over-tls"]] * 2


def test_a_certificate_that_nobody_vouches_for_is_refused(asker, tls_url):
    with pytest.raises(errors.UnreachableError, match=r"(?i)certificate"):
        asker(tls_url).models()


def test_a_certificate_of_another_host_is_refused(asker, tls_url, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with pytest.raises(errors.UnreachableError, match=r"(?i)certificate"):
        asker(tls_url.replace("localhost", "127.0.0.1")).models()


def test_a_connection_left_idle_too_long_is_not_trusted(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Server(listing) as server:
        transport = ThreadTransports().get(httpx.URL(server.url)).transport
        for _ in range(2):
            response = transport.handle_request(httpx.Request("GET", server.url))
            response.read()
            response.close()
            now[0] += 3600.0
        assert server.connections == 2
        transport.close()


def test_another_event_loop_than_asyncios_serves_as_well():
    async def ask(url):
        async with AsyncClient(base_urls={"openai_compatible": f"{url}/v1"}, cache=False, journal=False) as client:
            return [(await client.generate_text("openai_compatible/demo-small", "hi")).text for _ in range(2)]

    with ChatService().serve() as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        first, again = runner.run(ask(server.url))
    assert first == again != ""


@pytest.mark.parametrize("transport", ["own", "httpx", "fast"])
def test_a_streams_first_piece_is_there_before_its_last_is_sent(transport):
    def chunk(text, finish=None):
        return sse({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})

    gate = Gate()
    writes = (chunk("one "), gate, chunk("two", "stop") + b"data: [DONE]\n\n")
    answer = Answer(headers={"content-type": "text/event-stream"}, writes=writes)
    with (
        Server(lambda _request: answer) as server,
        Client(base_urls={"openai_compatible": f"{server.url}/v1"}, cache=False, journal=False, transport=transport) as client,
    ):
        events = client.stream_text("openai_compatible/m", "hi")
        first = next(events)  # a transport that held it back would wait for the gate, and for ever
        gate.opened.set()
        assert [event.text for event in (first, *events)][:2] == ["one ", "two"]
