"""In a running notebook kernel: the sync calls work, the loop is not patched, and an interrupt keeps what is finished."""

import os
import time

import pytest
from jupyter_client.manager import start_new_kernel


@pytest.fixture
def kernel(own_home):
    environment = {name: value for name, value in os.environ.items() if name != "CI"}  # a live table is what a user sees
    manager, client = start_new_kernel(kernel_name="python3", env={**environment, "TOOLKIT_HOME": str(own_home)})
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def output_of(client, message_id, *, when_started=None):
    """The text a cell printed, and the name of the error it ended with."""
    text, error = "", None
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") != message_id:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            text += content["text"]
            if when_started and "started" in text:
                when_started()
                when_started = None
        elif message["msg_type"] == "error":
            error = content["ename"]
        elif message["msg_type"] == "status" and content["execution_state"] == "idle":
            return text, error


def run(client, code, **options):
    return output_of(client, client.execute(code), **options)


def test_sync_and_awaited_calls_work_in_a_cell_whose_event_loop_runs(kernel):
    _, client = kernel
    text, error = run(
        client,
        "import asyncio, toolkit as tk\n"
        "assert asyncio.get_running_loop().is_running()\n"
        "print(tk.generate_text('scripted/echo', 'plain').text)\n"
        "print(''.join(event.text for event in tk.stream_text('scripted/echo', 'streamed')))\n"
        "print(len(tk.compare(['scripted/echo'], ['a', 'b'])))\n"
        "print(len(await tk.acompare(['scripted/echo'], ['c', 'd'])))\n"
        "print(asyncio.get_running_loop().__class__.__module__)",
    )
    assert error is None
    assert text.split()[:4] == ["plain", "streamed", "2", "2"]
    assert "nest" not in text


SLOW = (
    "import toolkit as tk\n"
    "from toolkit.testing import Answer, script\n"
    "script('some', lambda prompt, body: Answer(prompt, first_token_s=0.0 if prompt in 'abc' else 60.0))\n"
    "def tell(run):\n"
    "    if len(run.done) == 3 and not tell.told:\n"
    "        tell.told = True\n"
    "        print('started', flush=True)\n"
    "tell.told = False\n"
)


@pytest.mark.parametrize("call", ["tk.compare", "await tk.acompare"])
def test_an_interrupt_in_the_middle_of_a_comparison_returns_what_is_finished(kernel, call):
    manager, client = kernel
    pressed = []

    def interrupt():
        pressed.append(time.monotonic())
        manager.interrupt_kernel()

    code = f"{SLOW}result = {call}(['scripted/some'], list('abcdef'), concurrency=6, progress=tell)\nprint(result.missing)"
    text, error = run(client, code, when_started=interrupt)
    assert error is None
    assert text.split()[-1] == "3"
    assert len(pressed) == 1
    text, error = run(client, "print(result.frame['status'].tolist(), result.stopped)")
    assert (text.strip(), error) == ("['ok', 'ok', 'ok'] True", None)


NAPS = """
import os, signal, threading, time

class Naps(threading.Thread):
    count = 0

    def run(self):
        while True:
            time.sleep(0.01)
            self.count += 1

naps, three = Naps(daemon=True), threading.Event()
naps.start()

def press():
    three.wait()
    naps.pressed = naps.count
    os.kill(os.getpid(), signal.SIGINT)

def tell(run):
    if len(run.done) == 3:
        three.set()
"""


def test_an_interrupt_is_obeyed_within_half_a_second(kernel):
    """By a clock that is as slow as the machine: it counts naps of ten milliseconds, of which half a second holds fifty at most."""
    _, client = kernel
    assert run(client, SLOW + NAPS) == ("", None)
    for call in ("tk.compare", "await tk.acompare"):
        code = (
            "three.clear()\nthreading.Thread(target=press).start()\n"
            f"result = {call}(['scripted/some'], list('abcdef'), concurrency=6, cache=False, resume=False, progress=tell)\n"
            "print(result.missing, naps.count - naps.pressed)"
        )
        text, error = run(client, code)
        assert error is None
        missing, waited = map(int, text.split())
        assert missing == 3
        assert waited <= 50, call


def shown_by(client, code):
    """What a cell displayed, display by display, in the order it came: lists of MIME bundles."""
    message_id, displays = client.execute(code), {}
    while True:
        message = client.get_iopub_msg(timeout=60)
        content = message["content"]
        if message["msg_type"] in ("display_data", "update_display_data"):
            displays.setdefault(content["transient"]["display_id"], []).append(content["data"])
        elif message["msg_type"] == "error":
            raise AssertionError(content["evalue"])
        elif message["msg_type"] == "status" and content["execution_state"] == "idle" and message["parent_header"]["msg_id"] == message_id:
            return list(displays.values())


@pytest.mark.parametrize(
    ("call", "begins_as"), [("tk.compare", "text/html"), ("await tk.acompare", "application/vnd.jupyter.widget-view+json")]
)
def test_a_live_table_is_shown_and_leaves_plain_html_behind(kernel, call, begins_as):
    _, client = kernel
    code = (
        "import toolkit as tk\nfrom toolkit.testing import Answer, script\n"
        "script('<b>bold</b>', [Answer('x', first_token_s=0.1)])\n"
        f"result = {call}(['scripted/<b>bold</b>'], list('abcdef'), concurrency=1)"
    )
    (frames,) = shown_by(client, code)
    assert begins_as in frames[0]
    assert len(frames) > 1
    assert set(frames[-1]) == {"text/html", "text/plain"}
    assert "done: 6 of 6" in frames[-1]["text/html"]
    assert "&lt;b&gt;bold" in frames[-1]["text/html"] and "<b>bold" not in frames[-1]["text/html"]
