"""Forks after use, event loops that come and go, pages that run again."""

import asyncio
import contextlib
import dataclasses
import gc
import json
import multiprocessing
import os
import socket
import stat
import threading
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import dashboard
import toolkit as tk
from servers.chat_completions import ChatService, changed
from servers.http import CUT, Gate, Pause
from toolkit import AsyncClient, Client, defaults
from toolkit.cache import ResponseCache
from toolkit.monitor.journal import JournalReader

MODEL = "openai_compatible/demo-small"
FORK = multiprocessing.get_context("fork")


def client_of(kind, server, **options):
    return kind(base_urls={"openai_compatible": f"{server.url}/v1"}, **options)


def in_a_fork(work):
    """Do something in a forked child; return what it gives."""
    here, there = FORK.Pipe()

    def child():
        try:
            there.send(work())
        except BaseException as exc:  # noqa: BLE001 - told to the test
            there.send(exc)

    process = FORK.Process(target=child)
    process.start()
    assert here.poll(60), "the child hangs"
    answer = here.recv()
    process.join(60)
    assert process.exitcode == 0
    return answer


def echo(request, good):
    """The good answer, with the question as its words."""
    body = json.loads(b"".join(good.writes))
    body["choices"][0]["message"]["content"] = request.json["messages"][0]["content"]
    return dataclasses.replace(good, writes=[json.dumps(body).encode()], before=(Pause(0.001),))


@pytest.mark.parametrize("transport", ["own", "httpx", "fast"])
def test_a_forked_child_speaks_on_connections_of_its_own(transport):
    """On its parent's it would get its parent's answers."""
    with ChatService(fault=echo).serve() as server, client_of(Client, server, cache=False, journal=False, transport=transport) as client:

        def ask(who):
            return [client.generate_text(MODEL, f"{who} {number}").text for number in range(20)]

        client.generate_text(MODEL, "first")
        parents = []
        thread = threading.Thread(target=lambda: parents.extend(ask("parent")))
        here, there = FORK.Pipe()
        process = FORK.Process(target=lambda: there.send(ask("child")))
        process.start()
        thread.start()
        parents_here = ask("here")
        thread.join()
        assert here.poll(60), "the child hangs"
        assert here.recv() == [f"child {number}" for number in range(20)]
        process.join(60)
        assert parents == [f"parent {number}" for number in range(20)]
        assert parents_here == [f"here {number}" for number in range(20)]
        used = {request.json["messages"][0]["content"].split()[0]: request.connection for request in server.requests}
    assert used["child"] not in (used["here"], used["parent"], used["first"])


def test_a_forked_child_finds_what_was_kept_and_keeps_and_records_what_it_asks(own_home):
    with ChatService(fault=echo).serve() as server:
        client = client_of(Client, server, cache=ResponseCache(own_home / "cache"))
        client.generate_text(MODEL, "before")

        def work():
            answers = [client.generate_text(MODEL, words) for words in ("before", "after")]
            client.close()
            return [answer.provenance for answer in answers]

        assert in_a_fork(work) == ["replayed", "live"]
        assert client.generate_text(MODEL, "after").provenance == "replayed"
        client.close()
    rows = JournalReader(own_home / "journal.sqlite").calls(columns=["process", "provenance"])
    by_process = {}
    for process, provenance in zip(rows["process"], rows["provenance"]):
        by_process.setdefault(process, []).append(provenance)
    assert sorted(by_process.values()) == [["live", "replayed"], ["replayed", "live"]]


def test_a_child_forked_while_a_call_is_under_way_asks_for_itself(own_home):
    gate = Gate()
    slow = iter([gate])

    def fault(request, good):
        good = echo(request, good)
        good.before = (next(slow, b""),)
        return good

    with ChatService(fault=fault).serve() as server:
        client = client_of(Client, server, cache=ResponseCache(), journal=False)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(client.generate_text(MODEL, "same").text))
        thread.start()
        assert gate.reached.wait(20)
        assert in_a_fork(lambda: client.generate_text(MODEL, "same").text) == "same"
        gate.opened.set()
        thread.join()
        client.close()
    assert answers == ["same"]


# --- event loops ---------------------------------------------------------------------------------------------------------------------


def test_an_event_loop_can_be_closed_and_another_one_opened(own_home):
    with ChatService(fault=echo).serve() as server:
        client = client_of(AsyncClient, server, cache=ResponseCache(own_home / "cache"))

        async def ask(words):
            return await asyncio.gather(*(client.generate_text(MODEL, f"{words} {number}") for number in range(4)))

        for words in ("a", "b", "a"):
            answers = asyncio.run(ask(words))
            assert [answer.text for answer in answers] == [f"{words} {number}" for number in range(4)]
        assert {answer.provenance for answer in answers} == {"replayed"}
        asyncio.run(client.aclose())


def connections_to(server):
    """How many connections to a server this process has open. The server's own ends are not counted: its threads close them when they get to it."""
    gc.collect()
    there, found = ("127.0.0.1", int(server.url.rpartition(":")[2])), 0
    for name in [entry.name for entry in Path("/proc/self/fd").iterdir()]:
        with contextlib.suppress(OSError):  # the one that lists them; a socket that has no other end
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as connection:
                    found += connection.getpeername() == there
    return found


@pytest.mark.parametrize("transport", ["own", "httpx"])
def test_loops_that_ended_leave_no_connection_open(transport):
    with ChatService(fault=changed(framing="length")).serve() as server:
        client = client_of(AsyncClient, server, cache=False, journal=False, transport=transport)
        for _ in range(10):
            asyncio.run(client.generate_text(MODEL, "hi"))
        assert connections_to(server) <= 1, "the last one's goes when the next loop comes, or with the client"
        asyncio.run(client.aclose())
        assert connections_to(server) == 0


def drop_when_used_again():
    """A fault: a connection is dropped by its second request, as by a server that has just grown tired of it."""
    used = set()

    def fault(request, good):
        again = request.connection in used
        used.add(request.connection)
        return dataclasses.replace(good, before=(CUT,)) if again else good

    return fault


@pytest.mark.parametrize("transport", ["own", "httpx"])
def test_a_loop_whose_server_drops_connections_again_and_again_holds_on_to_none_of_them(transport):
    async def main(server):
        async with client_of(AsyncClient, server, cache=False, journal=False, transport=transport) as client:
            for _ in range(20):
                await client.generate_text(MODEL, "hi")
                assert connections_to(server) <= 1

    with ChatService(fault=drop_when_used_again()).serve() as server:
        asyncio.run(main(server))
        assert len({request.connection for request in server.requests}) == 20, "each call but the first was sent once more"


def test_a_closed_client_leaves_no_thread(own_home):
    with ChatService().serve() as server:
        client = client_of(AsyncClient, server, cache=ResponseCache(own_home / "cache"), journal=False)

        async def main():
            for words in ("closed", "used again and closed"):
                assert (await client.generate_text(MODEL, words)).provenance == "live"
                await client.aclose()

        asyncio.run(main())
        with Client(base_urls={"openai_compatible": f"{server.url}/v1"}, cache=ResponseCache(own_home / "cache"), journal=False) as other:
            assert other.generate_text(MODEL, "closed").provenance == "replayed", "what was to be written has been"
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("toolkit-cache")]


def test_a_call_cancelled_by_the_end_of_its_loop_leaves_the_client_usable():
    gate = Gate()
    slow = iter([gate])

    def fault(request, good):
        good = echo(request, good)
        good.before = (next(slow, b""),)
        return good

    with ChatService(fault=fault).serve() as server:
        client = client_of(AsyncClient, server, cache=ResponseCache(), journal=False)

        async def leave():
            task = asyncio.ensure_future(client.generate_text(MODEL, "same"))
            await asyncio.to_thread(gate.reached.wait, 20)
            assert not task.done()

        asyncio.run(leave())
        gate.opened.set()
        assert asyncio.run(client.generate_text(MODEL, "same")).text == "same"
        asyncio.run(client.aclose())


# --- pages -----------------------------------------------------------------------------------------------------------------------------


def held():
    """Open files and threads."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


APP = Path(dashboard.__file__).with_name("app.py")


def test_a_page_that_runs_again_and_again_holds_on_to_nothing(own_home):
    tk.generate_text("scripted/echo", "hi")
    defaults.reset()
    at = AppTest.from_file(str(APP), default_timeout=60).run()
    at.run()
    before = held()
    for _ in range(5):
        at.run()
        assert not at.exception
    assert all(now < then + 5 for now, then in zip(held(), before)), "a run that held on to something would do so each time"


SCRIPT = """
import streamlit as st
import toolkit as tk

st.write(tk.generate_text("scripted/echo", "hi").text)
"""


def test_a_streamlit_script_that_asks_runs_again_without_asking_or_holding_more(own_home):
    at = AppTest.from_string(SCRIPT, default_timeout=60).run()
    before = held()
    for _ in range(10):
        at.run()
        assert [element.value for element in at.markdown] == ["hi"]
    assert all(now < then + 10 for now, then in zip(held(), before)), "a run that held on to something would do so each time"
    defaults.reset()
    provenances = JournalReader(own_home / "journal.sqlite").calls(columns=["provenance"])["provenance"]
    assert provenances == ["live"] + ["replayed"] * 10
