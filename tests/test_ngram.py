import hashlib
import io
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import joblib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.providers.inprocess import Piece
from toolkit.providers.ngram import END, ORDERS, HeldBack, NgramModel, help_text, load_index, paragraphs, tokenise, train

DOGS = train(["a dog barks", "a dog sleeps"])
# Every word has a blank before it, so that joined tokens are cut at the same places again.
WORDS = train([" the dog sees the cat", " the cat sees a dog", " a bird sings", " the bird sees the dog and sings"])
GRID = [(n + 0.5) / 20_000 for n in range(20_000)]

prompts = st.one_of(st.sampled_from(["", "The value of", "Explain lists.", "xyzzy", "the xyzzy is", "def f(", "\n"]), st.text(max_size=30))


@cache
def help_index():
    return train(paragraphs(help_text()))


@cache
def help_model(order):
    return NgramModel(help_index(), order)


def text_of(model, prompt, **options):
    return "".join(piece.text for piece in model.generate(prompt, **options))


def ending_of(generation):
    while True:
        try:
            next(generation)
        except StopIteration as end:
            return end.value


def shares(tokens):
    tokens = list(tokens)
    return {token: tokens.count(token) / len(tokens) for token in set(tokens)}


# --- tokens --------------------------------------------------------------------------------------------------------------


@given(st.text())
def test_the_tokens_of_any_text_join_to_that_text(text):
    assert "".join(tokenise(text)) == text


@given(st.text())
def test_no_token_is_empty_so_none_can_be_taken_for_the_end(text):
    assert END not in tokenise(text)


def test_the_tokens_of_the_training_text_join_to_it():
    assert "".join(tokenise(help_text())) == help_text()


# --- the distribution ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(prompt=prompts, order=st.sampled_from(ORDERS), first=st.booleans())
def test_the_probabilities_after_any_text_sum_to_one(prompt, order, first):
    probabilities = help_model(order).probabilities(prompt, first=first)
    assert math.isclose(math.fsum(probabilities.values()), 1.0, rel_tol=1e-9)
    assert min(probabilities.values()) > 0


@settings(deadline=None, max_examples=20)
@given(prompt=prompts, order=st.sampled_from(ORDERS))
def test_every_token_has_a_probability_except_the_end_at_the_start_of_an_answer(prompt, order):
    model = help_model(order)
    assert set(model.probabilities(prompt)) == set(help_index().vocabulary)
    assert set(model.probabilities(prompt, first=True)) == set(help_index().vocabulary) - {END}


def test_a_bigram_is_smoothed_as_witten_and_bell_say():
    # After " dog": 2 places, 2 different followers. " barks" is 1 of the 8 tokens of the text.
    assert NgramModel(DOGS, 2).probabilities("a dog")[" barks"] == pytest.approx((1 + 2 * 1 / 8) / (2 + 2))


def test_a_trigram_is_smoothed_with_the_bigram():
    # "a dog" was seen twice, with 2 different followers; so was " dog".
    bigram = (1 + 2 * 1 / 8) / (2 + 2)
    assert NgramModel(DOGS, 3).probabilities("a dog")[" barks"] == pytest.approx((1 + 2 * bigram) / (2 + 2))


def test_a_unigram_is_the_frequency_in_the_text():
    assert NgramModel(DOGS, 1).probabilities("a dog") == {END: 2 / 8, " dog": 2 / 8, "a": 2 / 8, " barks": 1 / 8, " sleeps": 1 / 8}


@pytest.mark.parametrize("order", ORDERS)
def test_after_an_unknown_word_nothing_is_known_but_the_frequencies(order):
    assert NgramModel(DOGS, order).probabilities("a xyzzy") == NgramModel(DOGS, 1).probabilities("")


def test_a_context_never_seen_hands_over_to_the_next_shorter_one():
    assert NgramModel(WORDS, 3).probabilities(" sings dog") == NgramModel(WORDS, 2).probabilities(" dog")


def test_an_empty_prompt_is_the_beginning_of_a_paragraph():
    # Of four paragraphs two begin with " the" and one with " a"... and only beginnings count.
    likely = list(NgramModel(WORDS, 5).probabilities("", first=True))[:2]
    assert likely == [" the", " a"]


def test_white_space_at_the_end_of_a_prompt_does_not_matter():
    assert help_model(3).probabilities("The value of \n") == help_model(3).probabilities("The value of")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("order", ORDERS)
def test_drawing_over_the_unit_interval_gives_the_probabilities(order, first):
    model = NgramModel(WORDS, order)
    probabilities = model.probabilities(" the dog", first=first)
    lots = model.lots(model.slices(model.context(" the dog")), first, 1.0, 1.0)
    drawn = shares(WORDS.vocabulary[lots.draw(point)] for point in GRID)
    assert drawn == pytest.approx(probabilities, abs=0.002)


@pytest.mark.parametrize("order", ORDERS)
def test_the_quick_way_to_draw_gives_the_same_probabilities(order):
    model = NgramModel(WORDS, order)
    slices = model.slices(model.context(" the dog"))
    drawn = shares(WORDS.vocabulary[model.draw_as_learned(slices, point)] for point in GRID)
    assert drawn == pytest.approx(model.probabilities(" the dog"), abs=0.002)


@pytest.mark.parametrize("temperature", [0.01, 0.3, 0.7, 1.5, 10.0])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_temperature_raises_the_probabilities_to_its_inverse(order, temperature):
    model = NgramModel(WORDS, order)
    weights = {token: p ** (1 / temperature) for token, p in model.probabilities(" the dog").items()}
    whole = sum(weights.values())
    lots = model.lots(model.slices(model.context(" the dog")), False, temperature, 1.0)
    drawn = shares(WORDS.vocabulary[lots.draw(point)] for point in GRID)
    assert {token: drawn.get(token, 0.0) for token in weights} == pytest.approx(
        {token: weight / whole for token, weight in weights.items()}, abs=0.002
    )


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_top_p_leaves_the_fewest_likeliest_tokens_that_hold_it(top_p, temperature):
    model = NgramModel(WORDS, 3)
    weights = {token: p ** (1 / temperature) for token, p in model.probabilities(" the dog").items()}
    held, kept = 0.0, []
    while held < top_p * sum(weights.values()):
        kept.append(list(weights)[len(kept)])
        held += weights[kept[-1]]
    lots = model.lots(model.slices(model.context(" the dog")), False, temperature, top_p)
    drawn = shares(WORDS.vocabulary[lots.draw(point)] for point in GRID)
    assert drawn == pytest.approx({token: weights[token] / held for token in kept}, abs=0.002)
    assert len(kept) < len(weights)


@pytest.mark.parametrize("temperature", [1e-320, 1e-9, 1e9])
def test_extreme_temperatures_still_draw(temperature):
    assert text_of(help_model(3), "The value of", temperature=temperature, seed=1)


# --- generation ----------------------------------------------------------------------------------------------------------


def test_temperature_zero_takes_the_likeliest_token_each_time():
    model, text = NgramModel(WORDS, 3), " the"
    for piece in model.generate(text, temperature=0, max_tokens=5):
        assert piece.text == next(iter(model.probabilities(text, first=text == " the")))
        text += piece.text


def test_of_equally_likely_tokens_the_more_frequent_one_is_taken_then_the_first_by_spelling():
    model = NgramModel(train(["x b", "x a", "x c", "c c"]), 2)
    assert text_of(model, "x", temperature=0, max_tokens=1) == " c"
    assert text_of(NgramModel(train(["x b", "x a"]), 2), "x", temperature=0, max_tokens=1) == " a"


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}, {"top_p": 0.8}, {"temperature": 0}])
def test_a_seed_gives_the_same_text_in_every_process(options):
    program = (
        "from toolkit.providers.ngram import *\n"
        "model = NgramModel(train(paragraphs(help_text())), 3)\n"
        f"print(ascii(''.join(p.text for p in model.generate('The value of', seed=7, **{options!r}))))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("0", "4242")
    }
    assert told == {ascii(text_of(help_model(3), "The value of", seed=7, **options))}


def test_without_a_seed_answers_differ():
    assert len({text_of(help_model(3), "The value of") for _ in range(20)}) > 1


def test_different_seeds_give_different_texts():
    assert len({text_of(help_model(3), "The value of", seed=seed) for seed in range(20)}) > 10


def test_the_prompt_conditions_the_model():
    assert text_of(help_model(3), 'The "finally"', temperature=0) != text_of(help_model(3), "The value of", temperature=0)


@pytest.mark.parametrize("order", ORDERS)
def test_an_answer_is_never_empty(order):
    assert all(text_of(help_model(order), "This is the end.", seed=seed) for seed in range(100))


def test_the_limit_of_tokens_ends_an_answer_with_length():
    pieces = []
    generation = help_model(1).generate("", temperature=0, max_tokens=5)
    while len(pieces) < 5:
        pieces.append(next(generation))
    assert ending_of(generation) == ("length", 5)


def test_the_end_of_a_paragraph_ends_an_answer_with_stop():
    assert ending_of(NgramModel(DOGS, 3).generate("a", temperature=0)) == ("stop", 2)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 50), order=st.sampled_from(ORDERS), data=st.data())
def test_a_text_ends_before_its_first_stop_text_and_is_whole_until_there(seed, order, data):
    whole = text_of(help_model(order), "The value of", seed=seed)
    at = data.draw(st.integers(0, len(whole) - 1))
    stop = whole[at : at + data.draw(st.integers(1, 12))]
    assert text_of(help_model(order), "The value of", seed=seed, stop=[stop, "\0never"]) == whole[: whole.find(stop)]


@given(
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=12), st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3)
)
def test_what_is_held_back_never_shows_a_stop_text_and_loses_nothing_else(tokens, stops):
    held = HeldBack(stops)
    shown, read = "", ""
    for token in tokens:
        read += token
        shown += "".join(piece.text for piece in held.add(Piece(token)))
        assert not any(stop in shown for stop in stops)
        if held.stopped:
            assert any(shown + stop == read[: len(shown) + len(stop)] for stop in stops)
            return
    assert not any(stop in read for stop in stops)
    assert shown + "".join(piece.text for piece in held.rest()) == read


def test_text_that_cannot_begin_a_stop_text_is_not_held_back():
    held = HeldBack(["###"])
    assert held.add(Piece("free")) == [Piece("free")]


def test_a_stop_text_across_tokens_ends_the_answer_and_counts_as_drawn():
    generation = NgramModel(DOGS, 3).generate("a", temperature=0, stop=["g b"])
    assert next(generation).text == " do"
    assert ending_of(generation) == ("stop", 2)


@pytest.mark.parametrize("order", ORDERS)
def test_the_logprobs_are_the_logarithms_of_the_probabilities(order):
    model, text, first = NgramModel(WORDS, order), " the", True
    for piece in model.generate(text, seed=3, temperature=1.4, top_logprobs=4):
        [told] = piece.logprobs
        probabilities = model.probabilities(text, first=first)
        assert told.token == piece.text
        assert told.logprob == pytest.approx(math.log(probabilities[piece.text]))
        assert dict(told.top) == pytest.approx({token: math.log(p) for token, p in list(probabilities.items())[:4]})
        text, first = text + piece.text, False
    assert not first


def test_asking_for_logprobs_does_not_change_the_answer():
    assert text_of(help_model(4), "The", seed=5, top_logprobs=3) == text_of(help_model(4), "The", seed=5)


# --- training and its file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0, 6, "3"])
def test_an_order_that_does_not_exist_is_refused(order):
    with pytest.raises(ValueError, match="1 to 5"):
        NgramModel(DOGS, order)


@pytest.mark.parametrize("texts", [[], [""], [" ".join(map(str, range(66_000)))]])
def test_a_text_with_nothing_or_too_much_to_learn_is_refused(texts):
    with pytest.raises(ValueError, match="different tokens"):
        train(texts)


def test_prose_is_learned_without_its_line_breaks_and_tables_not_at_all():
    text = "Head\n****\n\nOne line\nand another:\n\n   x = 1\n   y = 2\n\n| a | b |\n\n"
    assert paragraphs(text) == ["One line and another:", "   x = 1\n   y = 2"]


def test_the_kept_index_is_the_trained_one_and_not_written_again(tmp_path):
    assert load_index(tmp_path) == help_index()
    [path] = tmp_path.iterdir()
    written = path.stat()
    assert load_index(tmp_path) == help_index()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_the_file_is_for_its_owner_only_and_nothing_else_is_left(tmp_path):
    load_index(tmp_path / "models")
    [path] = (tmp_path / "models").iterdir()
    assert path.name.startswith("ngram-5-v1-")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def changed(content: bytes) -> bytes:
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-1], changed, lambda content: b"x" * 5000])
def test_a_damaged_file_is_replaced(tmp_path, damage):
    load_index(tmp_path)
    [path] = tmp_path.iterdir()
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert load_index(tmp_path) == help_index()
    assert path.read_bytes() == good


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(("mode", "opened"), [(0o600, True), (0o622, False)])
def test_a_file_that_others_may_write_to_is_not_unpickled(tmp_path, mode, opened):
    load_index(tmp_path)
    [path] = tmp_path.iterdir()
    sprung = tmp_path / "sprung"
    buffer = io.BytesIO()
    joblib.dump((Trap(sprung), help_index().contexts, help_index().nexts), buffer)
    path.write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    path.chmod(mode)
    load_index(tmp_path)
    assert sprung.exists() is opened


def test_a_folder_that_cannot_be_written_costs_a_warning_only(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="is not kept"):
        assert load_index(tmp_path / "file" / "models") == help_index()
