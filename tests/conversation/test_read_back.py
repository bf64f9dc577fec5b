"""Reading back: the spans of a sample are its text, cut where the labels change."""

import copy

from mllm.conversation import IGNORE_INDEX, build_template, encode, read_back
from mllm.structures import Turn

TURNS = [
    Turn("human", "What is on <image> and on <image> ?"),
    Turn("gpt", "A dog, [0.100,0.200] ."),
    Turn("human", "and then ?"),
    Turn("gpt", "  日本 é "),
]


def with_image_token(tokenizer):
    """A copy that has ``<image>``, and its id."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    return tokenizer, tokenizer.convert_tokens_to_ids("<image>")


def test_spans_are_the_rendered_text_cut_at_images_and_labels(exact_tokenizer):
    tokenizer, image = with_image_token(exact_tokenizer)
    segments = build_template("vicuna_v1.1").render(TURNS, generation=False)
    encoded = encode(segments, tokenizer, image_token_ids=[[image] * 3] * 2)
    spans = read_back(encoded.input_ids, encoded.labels, tokenizer, image_token_id=image, image_tokens=3)
    assert [span.kind for span in spans] == [*["prompt", "image"] * 2, *["prompt", "trained"] * 2]
    assert sum(span.tokens for span in spans) == len(encoded.input_ids)
    trained = [span for span in spans if span.kind == "trained"]
    assert sum(span.tokens for span in trained) == sum(label != IGNORE_INDEX for label in encoded.labels)
    assert [span.text.strip() for span in trained] == ["A dog, [0.100,0.200] .</s>", "日本 é</s>"]
    rendered = "".join(segment.text for segment in segments)
    assert "".join(span.text for span in spans).replace(" ", "") == rendered.replace(" ", "")


def test_images_side_by_side_are_one_span_each(exact_tokenizer):
    tokenizer, image = with_image_token(exact_tokenizer)
    spans = read_back([image] * 5, [IGNORE_INDEX] * 5, tokenizer, image_token_id=image, image_tokens=2)
    assert [(span.kind, span.text, span.tokens) for span in spans] == [
        ("image", "<image>", 2),
        ("image", "<image>", 2),
        ("image", "<image>", 1),
    ]
