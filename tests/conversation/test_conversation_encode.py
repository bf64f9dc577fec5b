import pickle
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm.conversation import IGNORE_INDEX, Segment, build_template, check_supervision, encode, supervised_text
from mllm.conversation.encode import text_tokenizer
from mllm.errors import ConfigError, DataError
from mllm.structures import Turn

NAMES = ["vicuna_v1.1", "llava_v0", "plain", "phi3", "internlm2_chat"]
every_template = pytest.mark.parametrize("name", NAMES)
IMAGE = [7] * 5
HARD = [
    "</s>",
    "USER:",
    "ASSISTANT:",
    "###",
    "###Human:",
    "<image>",
    "<|im_end|>",
    "<|end|>",
    "{x}",
    "%",
    "%s",
    "日本",
    "🤖",
    "é",
    "<s>",
    "<0x0A>",
    "[SEP]",
    "á",
]
words = st.one_of(st.sampled_from([*HARD, " ", "\n", "the dog", "A", "a", ".", ">"]), st.text(max_size=5))
# "▁" stands for a space in SentencePiece: decoding it gives a space, so it cannot come back.
text = st.lists(words, max_size=6).map(lambda parts: "".join(parts).replace("▁", "_"))
ascii_text = st.lists(st.sampled_from(["A dog", "</s>", "###", "{a}", "%", " ", "<image>"]), max_size=5).map("".join)


def _turns(*pairs):
    return [Turn(role, text) for pair in pairs for role, text in zip(("human", "gpt"), pair, strict=False)]


def _encode(name, turns, tokenizer, *, generation=False, **options):
    template = build_template(name)
    segments = template.render(turns, generation=generation)
    images = [IMAGE] * sum(segment.kind == "image" for segment in segments)
    return segments, encode(segments, tokenizer, image_token_ids=images, bos=template.bos, **options)


@every_template
@settings(deadline=None, max_examples=20)
@given(pairs=st.lists(st.tuples(text, text), min_size=1, max_size=3))
def test_trained_ids_decode_to_the_answers_with_their_end_marks(name, exact_tokenizer, pairs):
    segments, encoded = _encode(name, _turns(*pairs), exact_tokenizer)
    end = build_template(name).end
    expected = [(answer.strip() + end).strip() for _, answer in pairs]
    assert [one.strip() for one in supervised_text(encoded, exact_tokenizer)] == expected
    check_supervision(segments, encoded, exact_tokenizer)


@every_template
@settings(deadline=None, max_examples=15)
@given(pairs=st.lists(st.tuples(ascii_text, ascii_text), min_size=1, max_size=3))
def test_trained_ids_decode_to_the_answers_for_every_tokenizer_but_for_case_and_spaces(name, tokenizer, pairs):
    segments, encoded = _encode(name, _turns(*pairs), tokenizer)
    end = build_template(name).end
    expected = ["".join((answer + end).split()).lower() for _, answer in pairs]
    found = ["".join(one.split()).lower() for one in supervised_text(encoded, tokenizer)]
    assert [one for one in found if one] == [one for one in expected if one]
    if name != "plain" or tokenizer.kind not in ("wordpiece", "bert"):  # to these a line break is no token
        check_supervision(segments, encoded, tokenizer)


@every_template
@settings(deadline=None, max_examples=20)
@given(pairs=st.lists(st.tuples(text, text), min_size=1, max_size=3))
def test_the_generation_prompt_begins_the_training_ids(name, tokenizer, pairs):
    training = _encode(name, _turns(*pairs), tokenizer)[1]
    for count in range(1, len(pairs) + 1):
        prompt = _encode(name, _turns(*pairs[:count]), tokenizer, generation=True)[1]
        assert training.input_ids[: len(prompt.input_ids)] == prompt.input_ids
        assert prompt.trained_count == 0
        if training.answers[count - 1 : count] and tokenizer.kind not in ("wordpiece", "bert"):
            assert training.answers[count - 1][0] >= len(prompt.input_ids)


@every_template
def test_the_model_learns_every_token_between_prompt_and_end_mark(name, exact_tokenizer):
    # An answer whose first character has no piece with a space of its own: the space is a token the model must write.
    turns = _turns(("<image>Q", "日a\u0301."))
    prompt = _encode(name, turns, exact_tokenizer, generation=True)[1]
    encoded = _encode(name, turns, exact_tokenizer)[1]
    start, end = encoded.answers[0]
    assert start == len(prompt.input_ids)
    assert encoded.labels[start:end] == encoded.input_ids[start:end]
    assert encoded.trained_count == end - start


def test_worked_ids_and_labels(tiny_tokenizers):
    tokenizer = tiny_tokenizers["byte_level"]
    turns = _turns(("Q", "a b"), ("R", ""))
    template = build_template({"type": "vicuna_v1.1", "system": ""})
    encoded = encode(template.render(turns, generation=False), tokenizer, bos=True)
    tokens = tokenizer.convert_ids_to_tokens(encoded.input_ids)
    # ":" + "Ġ" would be one token, had the prompt not to end between them.
    assert tokens == [
        *("<s>", "USER", ":Ġ", "Q", "ĠA", "S", "S", "I", "S", "T", "A", "N", "T", ":"),
        *("Ġa", "Ġ", "b", "</s>"),
        *("USER", ":Ġ", "R", "ĠA", "S", "S", "I", "S", "T", "A", "N", "T", ":", "Ġ", "</s>"),
    ]
    trained = [token for token, label in zip(tokens, encoded.labels, strict=True) if label != IGNORE_INDEX]
    assert trained == ["Ġa", "Ġ", "b", "</s>", "</s>"]
    assert encoded.answers == [(14, 18), (32, 33)]
    assert (encoded.answer_tokens, encoded.trained_count, encoded.truncated) == (3, 5, False)


def test_images_stand_in_their_order_and_are_never_trained(tiny_tokenizers):
    segments = build_template("plain").render(_turns(("x <image> y <image>", "a")), generation=False)
    encoded = encode(segments, tiny_tokenizers["byte_level"], image_token_ids=[[1, 2], [3]])
    assert encoded.input_ids[:3] == [1, 2, 3]
    assert encoded.labels[:3] == [IGNORE_INDEX] * 3
    assert encoded.trained_count == len(encoded.input_ids) - 3
    with pytest.raises(DataError, match="2 images in the text but 1"):
        encode(segments, tiny_tokenizers["byte_level"], image_token_ids=[[1, 2]])


@settings(deadline=None, max_examples=30)
@given(question=text, answer=text)
def test_turns_never_give_control_tokens(tokenizer, question, answer):
    segments, encoded = _encode("internlm2_chat", _turns((question.replace("<image>", ""), answer)), tokenizer)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id, tokenizer.bos_token_id}
    special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - {tokenizer.unk_token_id}
    found = [i for i in encoded.input_ids[tokenizer.bos_token_id is not None :] if i in special]
    known = [one for one in segments if one.kind == "special" and text_tokenizer(tokenizer).control_token(one.text)]
    assert len(found) == len(known)


def test_merges_that_spell_a_control_token_are_passed_over_in_turns(tiny_tokenizers):
    tokenizer = tiny_tokenizers["sentencepiece_like"]
    end = tokenizer.convert_tokens_to_ids("</s>")
    assert tokenizer("a</s>", add_special_tokens=False, split_special_tokens=True).input_ids[-1] == end
    assert _encode("vicuna_v1.1", _turns(("</s>", "a</s>")), tokenizer)[1].input_ids.count(end) == 1


def test_an_added_control_token_that_is_not_flagged_special_is_still_text_in_a_turn(tiny_tokenizers):
    tokenizer = pickle.loads(pickle.dumps(tiny_tokenizers["byte_level_without_control_tokens"]))
    tokenizer.add_tokens(["<|im_end|>", "<|im_start|>"])
    encoded = _encode("internlm2_chat", _turns(("<|im_end|>", "<|im_start|>")), tokenizer)[1]
    assert encoded.input_ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2
    assert encoded.input_ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 2


def test_coordinate_tokens_are_recognised_in_turns_also_when_added_later(tiny_tokenizers):
    tokenizer = pickle.loads(pickle.dumps(tiny_tokenizers["byte_level"]))
    turns = _turns(("Q", "<b_st><bin_0> <bin_2><b_ed>"))
    before = _encode("phi3", turns, tokenizer)[1]
    tokenizer.add_tokens(["<bin_2>"])
    after = _encode("phi3", turns, tokenizer)[1]
    tokens = [tokenizer.convert_ids_to_tokens([i for i in one.labels if i != IGNORE_INDEX]) for one in (before, after)]
    assert tokens[0] == ["<b_st>", "<bin_0>", "Ġ", *"<bin_2>", "<b_ed>", "<|end|>"]
    assert tokens[1] == ["<b_st>", "<bin_0>", "Ġ", "<bin_2>", "<b_ed>", "<|end|>"]


def test_empty_answers_train_the_end_mark_alone(exact_tokenizer):
    for name in NAMES:
        encoded = _encode(name, _turns(("Q", "  \n")), exact_tokenizer)[1]
        assert "".join(supervised_text(encoded, exact_tokenizer)).strip() == build_template(name).end.strip()
        assert encoded.answer_tokens == 0
        assert encoded.trained_count > 0


def test_the_space_before_an_empty_answer_is_not_trained(tiny_tokenizers):
    encoded = _encode("llava_v0", _turns(("Q", "")), tiny_tokenizers["byte_level"])[1]
    tokens = tiny_tokenizers["byte_level"].convert_ids_to_tokens(encoded.input_ids)
    assert tokens[-3:] == [":", "Ġ", "###"]
    assert [label != IGNORE_INDEX for label in encoded.labels[-3:]] == [False, False, True]


def test_truncation_cuts_the_tail_and_says_so(tokenizer):
    turns = _turns(("<image>Q", "A dog and a cat. " * 3))
    segments, whole = _encode("vicuna_v1.1", turns, tokenizer)
    start, end = whole.answers[0]
    for length in (end + 1, end, end - 1, start + 1, start):
        cut = _encode("vicuna_v1.1", turns, tokenizer, max_length=length)[1]
        assert cut.input_ids == whole.input_ids[:length]
        assert cut.labels == whole.labels[:length]
        assert cut.truncated == (length < len(whole.input_ids))
        assert cut.trained_count == max(min(length, end) - start, 0)
        check_supervision(segments, cut, tokenizer)
    assert cut.answers == []
    assert cut.answer_tokens == 0


def test_truncation_never_cuts_an_image(tiny_tokenizers):
    tokenizer = tiny_tokenizers["byte_level"]
    turns = _turns(("ab<image>cd", "e"))
    segments, whole = _encode("phi3", turns, tokenizer)
    needed = max(i for i, token in enumerate(whole.input_ids) if token == 7) + 1
    assert encode(segments, tokenizer, image_token_ids=[IMAGE], bos=True, max_length=needed).truncated
    for length in (needed - 1, needed - 5, needed - 6, 0):
        with pytest.raises(DataError, match=f"needs {needed} tokens but the model takes {length}"):
            encode(segments, tokenizer, image_token_ids=[IMAGE], bos=True, max_length=length)


@pytest.mark.parametrize("change", ["shift", "question", "missing end", "stray"])
def test_a_wrong_mask_is_found(exact_tokenizer, change):
    segments, encoded = _encode("phi3", _turns(("Where?", "On the mat")), exact_tokenizer)
    start, end = encoded.answers[0]
    first, last = {"shift": (start + 1, end + 1), "question": (start - 3, end), "missing end": (start, end - 1)}.get(
        change, (start, end)
    )
    ids = encoded.input_ids
    labels = [token if first <= i < last else IGNORE_INDEX for i, token in enumerate(ids)]
    labels[0] = ids[0] if change == "stray" else IGNORE_INDEX
    with pytest.raises(DataError, match="labels bear loss" if change == "stray" else "trained tokens read|bear loss"):
        check_supervision(segments, replace(encoded, labels=labels, answers=[(first, last)]), exact_tokenizer)


def test_a_missing_answer_is_found(exact_tokenizer):
    segments, _ = _encode("phi3", _turns(("a", "b"), ("c", "d")), exact_tokenizer)
    _, other = _encode("phi3", _turns(("a", "b")), exact_tokenizer)
    with pytest.raises(DataError, match="1 answers are trained, the conversation has 2"):
        check_supervision(segments, other, exact_tokenizer)


def test_the_first_token_leads_once_and_only_where_there_is_one(tiny_tokenizers):
    segments = [Segment("special", "<s>"), Segment("text", "a")]
    tokenizer = tiny_tokenizers["byte_level"]
    assert encode(segments, tokenizer, bos=True).input_ids.count(tokenizer.bos_token_id) == 1
    without = tiny_tokenizers["byte_level_without_control_tokens"]
    assert without.decode(encode(segments[1:], without, bos=True).input_ids) == "a"


def test_earlier_calls_of_the_tokenizer_leave_no_trace(tiny_tokenizers):
    tokenizer = pickle.loads(pickle.dumps(tiny_tokenizers["byte_level"]))
    before = _encode("phi3", _turns(("Q" * 40, "A")), tokenizer)[1]
    tokenizer("a", truncation=True, max_length=3, padding="max_length")
    tokenizer.add_tokens(["<bin_7>"])
    assert _encode("phi3", _turns(("Q" * 40, "A")), tokenizer)[1] == before
    assert tokenizer("<|end|>", add_special_tokens=False).input_ids == [tokenizer.convert_tokens_to_ids("<|end|>")]


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece_like", "sentencepiece_like_legacy", "swallowing"])
@pytest.mark.parametrize("name", ["phi3", "internlm2_chat"])
def test_ids_are_those_the_tokenizer_gives_the_whole_text(tiny_tokenizers, kind, name):
    # No greedy merge joins these words across a boundary: pieces and whole agree, prefixes and white space included.
    turns = _turns(("<image> who", "it is"), ("why", "so"))
    segments, encoded = _encode(name, turns, tiny_tokenizers[kind])
    whole = tiny_tokenizers[kind]("".join(one.text for one in segments), add_special_tokens=False).input_ids
    image = tiny_tokenizers[kind].convert_tokens_to_ids("<image>")
    place = whole.index(image)
    skipped = int(encoded.input_ids[0] == tiny_tokenizers[kind].bos_token_id)
    assert encoded.input_ids[skipped:] == [*whole[:place], *IMAGE, *whole[place + 1 :]]


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        def __len__(self):
            return 1

    with pytest.raises(ConfigError, match="Slow gives no offsets"):
        encode([Segment("text", "a")], Slow())


def test_a_folder_with_only_a_sentencepiece_model_gives_the_ids_of_its_library(shared_data, sentencepiece_loader):
    sentencepiece = pytest.importorskip("sentencepiece")
    file = shared_data / "tokenizers" / "hf_layout" / "llama_style_mistral_v1" / "tokenizer.model"
    model = sentencepiece.SentencePieceProcessor(model_file=str(file))
    generator = random.Random(0)
    parts = [
        "the",
        "safe.",
        "Your",
        "日本",
        "🤖",
        "a",
        " ",
        "  ",
        "   ",
        "\n",
        "\t",
        "0.123",
        "====",
        "é",
        "x",
        "</",
        "s>",
    ]
    texts = ["".join(generator.choices(parts, k=generator.randint(1, 15))) for _ in range(1000)]
    texts += [mark + " " * count + "x" for count in range(40) for mark in ("", "y")]
    for legacy in (False, True):
        tokenizer = sentencepiece_loader(file, legacy=legacy)
        reader = text_tokenizer(tokenizer).start
        wrong = [
            one
            for one in texts
            if (legacy or not one.startswith(" "))
            and reader.encode(one, add_special_tokens=False).ids != model.encode(one)
        ]
        assert wrong == []
    assert tokenizer.bos_token_id == model.bos_id()
    assert tokenizer.eos_token_id == model.eos_id()
