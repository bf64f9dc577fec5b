import pytest

from mllm.conversation import build_template, rendered_text, trained_text
from mllm.conversation.render import template_segments
from mllm.errors import ConfigError, DataError
from mllm.registry import TEMPLATES
from mllm.structures import Turn

V1 = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
V0 = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
NAMES = ["vicuna_v1.1", "llava_v0", "plain", "phi3", "internlm2_chat"]
TURNS = [
    Turn("human", "<image>\nWhat is {it}?"),
    Turn("gpt", " A dog. "),
    Turn("human", "Sure?"),
    Turn("gpt", "100%"),
]
# Written out by hand from the papers' repositories; **…** is trained.
EXPECTED = {
    "vicuna_v1.1": V1 + " USER: <image>\nWhat is {it}? ASSISTANT: **A dog.</s>**USER: Sure? ASSISTANT: **100%</s>**",
    "llava_v0": V0 + "###Human: <image>\nWhat is {it}?###Assistant: **A dog.###**Human: Sure?###Assistant: **100%###**",
    "plain": "<image>**A dog.\n****100%\n**",
    "phi3": "<|user|>\n<image>\nWhat is {it}?<|end|>\n<|assistant|>\n**A dog.<|end|>**\n"
    "<|user|>\nSure?<|end|>\n<|assistant|>\n**100%<|end|>**\n",
    "internlm2_chat": "<|im_start|>user\n<image>\nWhat is {it}?<|im_end|>\n"
    "<|im_start|>assistant\n**A dog.<|im_end|>**\n"
    "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n**100%<|im_end|>**\n",
}
PROMPTS = {
    "vicuna_v1.1": V1 + " USER: <image>\nWhat is {it}? ASSISTANT: A dog.</s>USER: Sure? ASSISTANT:",
    "llava_v0": V0 + "###Human: <image>\nWhat is {it}?###Assistant: A dog.###Human: Sure?###Assistant:",
    "plain": "<image>A dog.\n",
    "phi3": "<|user|>\n<image>\nWhat is {it}?<|end|>\n<|assistant|>\nA dog.<|end|>\n"
    "<|user|>\nSure?<|end|>\n<|assistant|>\n",
    "internlm2_chat": "<|im_start|>user\n<image>\nWhat is {it}?<|im_end|>\n<|im_start|>assistant\nA dog.<|im_end|>\n"
    "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n",
}


def _marked(segments):
    """Text with ** around each reply's trained part, as in the tables above."""
    text, inside = "", False
    for segment in segments:
        if inside and (not segment.trained or segment.boundary):
            text, inside = text + "**", False
        if segment.trained and not inside:
            text, inside = text + "**", True
        text += segment.text
    return text + "**" * inside


@pytest.mark.parametrize("name", NAMES)
def test_training_text_and_its_trained_part_are_those_of_the_papers(name):
    assert _marked(build_template(name).render(TURNS, generation=False)) == EXPECTED[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("turns", [TURNS, TURNS[:3]], ids=["answer dropped", "no answer"])
def test_generation_ends_at_the_prompt_and_trains_nothing(name, turns):
    segments = build_template(name).render(turns, generation=True)
    assert rendered_text(segments) == PROMPTS[name]
    assert trained_text(segments) == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_last_question_without_an_answer_is_not_trained(name):
    segments = build_template(name).render(TURNS[:3], generation=False)
    assert rendered_text(segments) == PROMPTS[name]
    assert trained_text(segments) == "A dog." + build_template(name).end


def test_images_are_segments_in_questions_and_text_in_answers():
    turns = [Turn("human", "a <image> b<image>"), Turn("gpt", "no <image> here")]
    segments = build_template("vicuna_v1.1").render(turns, generation=False)
    assert [segment.text for segment in segments if segment.kind == "image"] == ["<image>", "<image>"]
    assert [segment.text for segment in segments if segment.answer] == ["no <image> here"]


def test_control_strings_in_turns_are_text_and_those_of_the_template_are_not():
    turns = [Turn("human", "a </s> <|im_end|>"), Turn("gpt", "<|im_start|></s>")]
    segments = build_template("internlm2_chat").render(turns, generation=False)
    assert [segment.text for segment in segments if segment.kind == "special"] == [
        "<|im_start|>",
        "<|im_end|>",
        "<|im_start|>",
        "<|im_end|>",
    ]


def test_stop_strings_are_the_end_marks():
    stops = {name: build_template(name).stop for name in NAMES}
    assert stops == {
        "vicuna_v1.1": ["</s>"],
        "llava_v0": ["###"],
        "plain": ["\n"],
        "phi3": ["<|end|>"],
        "internlm2_chat": ["<|im_end|>"],
    }


def test_the_system_text_can_be_changed_or_left_out():
    template = build_template({"type": "vicuna_v1.1", "system": "Be {brief}</s>."})
    segments = template.render(TURNS[2:], generation=True)
    assert rendered_text(segments) == "Be {brief}</s>. USER: Sure? ASSISTANT:"
    assert all(segment.kind == "text" for segment in segments)
    bare = build_template({"type": "vicuna_v1.1", "system": ""})
    assert rendered_text(bare.render(TURNS[2:], generation=True)) == "USER: Sure? ASSISTANT:"
    phi3 = build_template({"type": "phi3", "system": "S"})
    assert rendered_text(phi3.render(TURNS[2:3], generation=True)).startswith("<|system|>\nS<|end|>\n<|user|>\nSure?")


@pytest.mark.parametrize("name", NAMES)
def test_a_config_rebuilds_the_template(name):
    template = build_template(name)
    rebuilt = TEMPLATES.build(template.to_config())
    assert rebuilt.to_config() == template.to_config()
    assert rebuilt.render(TURNS, generation=False) == template.render(TURNS, generation=False)
    assert build_template(template) is template


def test_errors_name_what_is_wrong():
    with pytest.raises(ConfigError, match="did you mean 'phi3'"):
        build_template("phi-3")
    template = build_template("phi3")
    with pytest.raises(DataError, match=r"conversations\[1\]: from 'human'"):
        template.render([TURNS[0], TURNS[0]], generation=False)
    with pytest.raises(DataError, match="without turns"):
        template.render([], generation=True)
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        build_template("chat_template").render(TURNS, generation=True)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
LISTS = (
    "{% for m in messages %}{{ m['role'] | upper }}: "
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ c['text'] }} {% endfor %}{% endfor %}"
)


@pytest.fixture
def chat(tiny_tokenizers):
    """Binds ``chat_template`` to a tokenizer with the given chat template."""

    def bind(source, **arguments):
        tokenizer = tiny_tokenizers["byte_level"]
        tokenizer.chat_template = source
        return build_template({"type": "chat_template", **arguments}).bind(tokenizer)

    return bind


@pytest.mark.parametrize(
    ("source", "expected", "prompt", "stop"),
    [
        (CHATML, EXPECTED["internlm2_chat"], PROMPTS["internlm2_chat"], "<|im_end|>"),
        (
            INSTRUCT,
            "<s>[INST] <image>\nWhat is {it}? [/INST] **A dog.</s>**[INST] Sure? [/INST] **100%</s>**",
            "<s>[INST] <image>\nWhat is {it}? [/INST] A dog.</s>[INST] Sure? [/INST]",
            "</s>",
        ),
    ],
    ids=["chatml", "instruct"],
)
def test_a_chat_template_gives_its_own_text_with_the_answers_marked(chat, source, expected, prompt, stop):
    template = chat(source)
    assert _marked(template.render(TURNS, generation=False)) == expected
    assert rendered_text(template.render(TURNS, generation=True)) == prompt
    assert trained_text(template.render(TURNS, generation=True)) == ""
    assert template.stop == [stop]


def test_a_chat_template_never_sees_the_words_of_a_turn(chat):
    turns = [Turn("human", "<|im_end|> {{ m }} @@turn-1@@"), Turn("gpt", "</s> {% raw %} <|im_start|>")]
    segments = chat(CHATML).render(turns, generation=False)
    assert [segment.text for segment in segments if segment.kind == "special"] == ["<|im_start|>", "<|im_end|>"] * 2
    assert [segment.text for segment in segments if segment.answer] == ["</s> {% raw %} <|im_start|>"]


def test_a_chat_template_takes_the_system_text(chat):
    segments = chat(CHATML, system="S <|im_end|>").render(TURNS[2:3], generation=True)
    assert rendered_text(segments).startswith("<|im_start|>system\nS <|im_end|><|im_end|>\n<|im_start|>user\nSure?")
    assert segments[2].kind == "text"
    with pytest.raises(ConfigError, match="system message"):
        chat(INSTRUCT, system="S")


def test_a_chat_template_without_end_mark_needs_one(chat):
    with pytest.raises(ConfigError, match="give end="):
        chat(LISTS)
    template = chat(LISTS, end="</s>")
    assert _marked(template.render(TURNS[2:], generation=False)) == "USER: Sure? ASSISTANT: **100%</s>** "
    assert template.stop == ["</s>"]
    assert template.to_config() == {"type": "chat_template", "end": "</s>"}


def test_a_chat_template_that_drops_turns_is_refused(chat):
    with pytest.raises(ConfigError, match="each turn once"):
        chat("{{ messages[0]['content'] }}")


def test_a_chat_template_that_ends_only_the_last_answer_is_refused(chat):
    template = chat("{% for m in messages %}{{ m['content'] }}{% if loop.last %}</s>{% endif %}{% endfor %}")
    with pytest.raises(ConfigError, match="ends one answer with"):
        template.render(TURNS, generation=False)


def test_of_control_tokens_that_begin_alike_the_longest_is_read():
    segments = template_segments("a<|im|>b<|im|>2", ["<|im|>", "<|im|>2"])
    assert [(one.kind, one.text) for one in segments] == [
        ("text", "a"),
        ("special", "<|im|>"),
        ("text", "b"),
        ("special", "<|im|>2"),
    ]
