"""Everything public shows itself: the same each time, without an address in memory or a secret, and harmless in a page."""

import re

import pytest

import toolkit as tk
from toolkit import cache, monitor
from toolkit.errors import ServerError
from toolkit.monitor.performance import PerformanceMonitor
from toolkit.monitor.tracker import ErrorTracker
from toolkit.render import Listing
from toolkit.testing import script

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
SECRET = "sk-verysecretkey0123456789abcdef"
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
WEB = re.compile(r"""(?:src|href|url\(|@import)\s*[=(]?\s*["']?(?:https?:)?//""", re.IGNORECASE)


def completion():
    return tk.Completion(text=EVIL, reasoning=EVIL, model=f"scripted/{EVIL}", provider="scripted", request_id=EVIL)


def compared():
    answers = (script("hostile<b>", lambda prompt, body: EVIL + prompt), script("other<b>", lambda prompt, body: prompt))
    return tk.compare(answers, [EVIL, "two"], name=EVIL, progress=False)


def tracked():
    try:
        raise ServerError(EVIL, provider="scripted")
    except ServerError as error:
        return ErrorTracker().track_error(error, note=EVIL, api_key=SECRET)


def timed():
    metrics = PerformanceMonitor()
    metrics.record(EVIL, 0.25)
    return metrics


def filled():
    store = cache.Cache(max_size=3)
    store.set(EVIL, SECRET)
    return store


def logged():
    log = monitor.Logger("shown", output="none")
    log.info(EVIL, token=SECRET)
    return log


def kept_answer():
    play = tk.playground(["scripted/echo"])
    play.ask(EVIL)
    play.wait()
    play.keep()
    play.close()
    return play.kept()[0]


SHOWN = {
    "AsyncClient": lambda: tk.AsyncClient(api_keys={"openrouter": SECRET}),
    "Client": lambda: tk.Client(api_keys={"openrouter": SECRET}, base_urls={"openrouter": f"https://ann:{SECRET}@host.example/v1"}),
    "Comparison": compared,
    "Completion": completion,
    "Health": lambda: tk.Health(provider="p", ok=False, detail=EVIL),
    "Image": lambda: tk.Image(data=b"<script>", mime=EVIL),
    "ImagePart": lambda: tk.ImagePart(data=b"<script>", mime=EVIL),
    "ImageResult": lambda: tk.ImageResult(images=(tk.Image(data=EVIL.encode(), mime=EVIL),), text=EVIL, model=EVIL),
    "Judge": lambda: tk.Judge(tk.Model("scripted/echo", extra={"token": SECRET}), instructions=EVIL),
    "Message": lambda: tk.Message(role="user", content=EVIL),
    "Model": lambda: tk.Model("scripted/echo", label=EVIL, extra={"token": SECRET}),
    "ModelInfo": lambda: tk.ModelInfo(id=EVIL, provider="p", detail={"about": EVIL}),
    "Price": lambda: tk.Price(input=1.0, output=2.0, date=EVIL),
    "PullProgress": lambda: tk.PullProgress(status=EVIL),
    "Retry": tk.Retry,
    "StreamEvent": lambda: tk.StreamEvent("text", EVIL),
    "TextPart": lambda: tk.TextPart(text=EVIL),
    "Timing": tk.Timing,
    "ToolCall": lambda: tk.ToolCall(id="1", name=EVIL, arguments=EVIL),
    "Usage": tk.Usage,
    "Cache": filled,
    "CacheStats": lambda: filled().stats(),
    "LRUCache": lambda: cache.LRUCache(max_size=2),
    "ResponseCache": lambda: tk.Client().cache,
    "ErrorReport": tracked,
    "ErrorTracker": ErrorTracker,
    "LogEntry": lambda: logged().entries()[-1],
    "Logger": logged,
    "MetricStats": lambda: timed().stats(EVIL),
    "PerformanceMonitor": timed,
}
ALSO = {
    "a frame": lambda: compared().frame,
    "a kept answer": kept_answer,
    "a list of models": lambda: tk.list_models("scripted"),
    "a summary": lambda: compared().summary(),
    "a verdict": lambda: compared().verdict("output_tokens"),
    "answers side by side": lambda: compared().side_by_side(),
    "the differences": lambda: compared().side_by_side(only="different"),
    "the model cache": lambda: cache.model_cache,
    "the setup": tk.setup,
    "what providers say": lambda: tk.Client(journal=False).health_check(),
}


@pytest.mark.parametrize("make", [*SHOWN.values(), *ALSO.values()], ids=[*SHOWN, *ALSO])
def test_an_object_shows_itself_the_same_each_time_without_secrets_and_harmless(make, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    shown = make()
    text, page = repr(shown), shown._repr_html_()
    assert (repr(shown), shown._repr_html_()) == (text, page)
    assert not ADDRESS.search(text + page)
    assert SECRET not in text + page
    assert "<script" not in page.lower() and "<img src=x" not in page.lower()
    assert not WEB.search(page)


def test_no_public_class_is_forgotten():
    public = {name: getattr(module, name) for module in (tk, cache, monitor) for name in module.__all__}
    classes = {name for name, found in public.items() if isinstance(found, type)}
    assert classes == set(SHOWN)


def test_a_list_of_models_is_a_table_of_twenty_rows_at_most():
    listing = Listing(tk.ModelInfo(id=f"m{i}", provider="p") for i in range(25))
    page = listing._repr_html_()
    assert page.count("<tr>") == 21
    assert "and 5 more" in page
