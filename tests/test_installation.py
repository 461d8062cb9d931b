"""What ``tk.setup()`` tells, and what it never does."""

import tomllib
from pathlib import Path

import pytest

import toolkit as tk
from toolkit import defaults
from toolkit.cli import main
from toolkit.installation import EXTRAS, shown_place

SECRET = "sk-verysecretkey0123456789abcdef"


def states():
    return {each.name: each for each in tk.setup().providers}


def test_a_key_is_said_to_be_there_and_never_shown(monkeypatch):
    monkeypatch.setenv("OPENROUTER_API_KEY", SECRET)
    card = tk.setup()
    found = states()["openrouter"]
    assert (found.state, found.detail) == ("key present", "from OPENROUTER_API_KEY; not asked")
    assert SECRET not in repr(card) + card._repr_html_() + "".join(card.next_steps)


def test_a_provider_that_is_not_set_up_says_what_to_set():
    found = states()["cohere"]
    assert found.state == "not set up" and "CO_API_KEY" in found.detail
    assert any("CO_API_KEY" in step for step in tk.setup().next_steps)


def test_servers_of_this_machine_are_asked(monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    assert states()["ollama"].state == "does not answer"
    assert states()["embedded"].state == "ready"


def test_places_are_named_with_their_sizes_and_without_the_home_folder(own_home):
    before = {place.name: place.size_bytes for place in tk.setup().places}
    tk.generate_text("scripted/echo", "something to keep")
    defaults.client().journal.flush()
    after = {place.name: place for place in tk.setup().places}
    assert after["journal"].size_bytes > 0 and after["cache"].size_bytes > before["cache"]
    assert after["journal"].shown == "$TOOLKIT_HOME/journal.sqlite"
    assert str(own_home) not in repr(tk.setup())


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        (f"redis://:{SECRET}@cache.example:6379/0", "redis://cache.example:6379/0"),
        (str(Path.home() / "data" / "j.sqlite"), "~/data/j.sqlite"),
        ("/srv/j.sqlite", "/srv/j.sqlite"),
    ],
)
def test_an_address_is_shown_without_its_password_and_a_path_without_a_name(monkeypatch, where, shown):
    monkeypatch.delenv("TOOLKIT_HOME")
    assert shown_place(where) == shown


def test_the_doctor_shows_the_same_places(capsys):
    main(["doctor", "embedded"])
    out = capsys.readouterr().out
    assert all(place.where in out for place in tk.setup().places)


def test_every_extra_is_known_by_its_name():
    declared = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(declared) - {"docs", "test"}
