"""``schema=`` with a type: the service gets its JSON Schema, the caller the checked object, whoever asks."""

import dataclasses
import json
import sys
from typing import Annotated, Literal

import httpx
import pydantic
import pytest
from typing_extensions import TypedDict

from test_call import MODEL, Loop, Service, Threads, reply
from toolkit import Client, Model, compare
from toolkit.cache import ResponseCache
from toolkit.errors import ConfigError, ReplyError
from toolkit.providers.scripted import Answer, script
from toolkit.schemas import read_schema


class River(pydantic.BaseModel):
    name: str
    length_km: float


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Town(TypedDict):
    name: str


@pytest.fixture(params=[Threads, Loop])
def asker(request, tmp_path):
    def make(*texts, **options):
        service = Service(*[httpx.Response(200, json=reply(text)) for text in texts])
        return request.param(service, ResponseCache(tmp_path / "cache"), **options), service

    return make


RHINE = '{"name": "Rhine", "length_km": 1233}'

CASES = [
    (River, RHINE, River(name="Rhine", length_km=1233.0)),
    (Point, '{"x": 1, "y": 2}', Point(1, 2)),
    (Town, '{"name": "Bonn"}', {"name": "Bonn"}),
    (list[Point], '[{"x": 1, "y": 2}]', [Point(1, 2)]),
    (int | None, "null", None),
    (Literal["red", "blue"], '"red"', "red"),
    (Annotated[int, pydantic.Field(ge=1)], "7", 7),
]


@pytest.mark.parametrize(("schema", "text", "value"), CASES, ids=lambda case: str(case)[:30])
def test_the_parsed_answer_is_the_checked_object_live_and_replayed(asker, schema, text, value):
    ask, service = asker(text)
    first, again = ask.generate(MODEL, "hi", schema=schema), ask.generate(MODEL, "hi", schema=schema)
    assert (first.parsed, again.parsed, again.provenance) == (value, value, "replayed")
    assert type(first.parsed) is type(value)
    assert service.seen[0]["response_format"]["json_schema"]["schema"] == pydantic.TypeAdapter(schema).json_schema()


def test_a_stream_ends_with_the_checked_object(asker):
    script("river", [Answer(RHINE)])
    ask, _ = asker()
    assert ask.stream("scripted/river", "hi", schema=River)[-1].completion.parsed == River(name="Rhine", length_km=1233.0)


def test_a_type_and_its_json_schema_are_one_question_to_the_cache(asker):
    ask, service = asker(RHINE)
    ask.generate(MODEL, "hi", schema=River)
    again = ask.generate(MODEL, "hi", schema=River.model_json_schema())
    assert (again.provenance, again.parsed, len(service.seen)) == ("replayed", json.loads(RHINE), 1)


@pytest.mark.parametrize("text", ['{"name": "Rhine"}', '{"name": "Rhine", "length_km": "long"}', "The Rhine.", RHINE[:-5]])
def test_an_answer_that_does_not_fit_is_an_error_with_its_text_and_is_not_kept(asker, text):
    ask, _ = asker(text, RHINE)
    with pytest.raises(ReplyError, match="schema=") as caught:
        ask.generate(MODEL, "hi", schema=River)
    assert caught.value.partial == text
    assert "long" not in str(caught.value).replace("length_km", "")
    assert ask.generate(MODEL, "hi", schema=River).parsed.name == "Rhine"


def test_an_answer_kept_for_a_dict_that_does_not_fit_the_type_is_asked_for_again(asker):
    ask, service = asker('{"name": "Rhine"}', RHINE)
    ask.generate(MODEL, "hi", schema=River.model_json_schema())
    with pytest.raises(ReplyError):
        ask.generate(MODEL, "hi", schema=River, cache="only")
    assert ask.generate(MODEL, "hi", schema=River).provenance == "live"
    assert ask.generate(MODEL, "hi", schema=River).provenance == "replayed"
    assert len(service.seen) == 2


def test_an_answer_is_checked_once(asker):
    checks = []

    class Counted(pydantic.BaseModel):
        x: int

        @pydantic.field_validator("x")
        @classmethod
        def count(cls, x):
            checks.append(x)
            return x

    ask, _ = asker('{"x": 1}')
    ask.generate(MODEL, "hi", schema=Counted)
    assert checks == [1]


def test_a_validator_that_breaks_does_not_lose_the_answer(asker):
    class Broken(pydantic.BaseModel):
        x: int

        @pydantic.field_validator("x")
        @classmethod
        def look_up(cls, x):
            return {}[x]

    ask, _ = asker('{"x": 1}')
    with pytest.raises(ReplyError, match="KeyError") as caught:
        ask.generate(MODEL, "hi", schema=Broken)
    assert caught.value.partial == '{"x": 1}'


def test_a_comparison_takes_types_for_all_models_and_for_one():
    script("town", [Answer('{"name": "Bonn"}')])
    script("rhine", [Answer(RHINE)])
    parsed = []

    def note(completion, _reference):
        parsed.append(completion.parsed)
        return 1

    models = ["scripted/town", Model("scripted/rhine", schema=River), Model("scripted/rhine", schema=River, temperature=0.5)]
    result = compare(models, ["Where?"], schema=Town, scorers={"note": note}, cache=False, progress=False)
    assert result.frame["status"].tolist() == ["ok"] * 3
    assert {"name": "Bonn"} in parsed and River(name="Rhine", length_km=1233.0) in parsed
    assert any("temperature=0.5, schema=River" in label for label in result.models)


@pytest.mark.parametrize("wrong", ["text", 7, Point(1, 2), print, open, b"x"])
def test_what_is_no_schema_is_told_before_anything_is_sent(asker, wrong):
    ask, service = asker()
    with pytest.raises(ConfigError, match="JSON Schema"):
        ask.generate(MODEL, "hi", schema=wrong)
    assert service.seen == []


def test_without_pydantic_the_extra_is_named_and_dicts_work(monkeypatch, tmp_path):
    class Unseen(pydantic.BaseModel):
        x: int

    monkeypatch.setitem(sys.modules, "pydantic", None)
    script("number", [Answer("7")])
    with Client(cache=False, journal=False) as client:
        with pytest.raises(ConfigError, match=r"pip install 'model-comparison-toolkit\[schema\]'"):
            client.generate_text("scripted/number", "hi", schema=Unseen)
        assert client.generate_text("scripted/number", "hi", schema={"type": "integer"}).parsed == 7


def test_the_words_for_a_union_do_not_depend_on_who_asked_before():
    assert read_schema(int | str).json["anyOf"] == list(reversed(read_schema(str | int).json["anyOf"]))
