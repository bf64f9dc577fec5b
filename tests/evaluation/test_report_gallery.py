import re

from PIL import Image

from mllm.evaluation.gallery import Places, answer_card, gallery, picture_svg, ranking_metric
from mllm.grounding.formatter import PlainFormatter
from mllm.registry import EVALUATORS
from mllm.structures import Frame, Record

FRAME = Frame((100, 100), (100, 100))


def rec(answers):
    evaluator = EVALUATORS.build({"type": "RECEvaluator"})
    evaluator.formatter = PlainFormatter()
    records = [Record(i, str(i), text, "", {"boxes": [[10, 10, 50, 50]]}, [FRAME]) for i, text in enumerate(answers)]
    return evaluator.evaluate(records), records


def shown(markup):
    return [int(number) for number in re.findall(r"<small>#(\d+)", markup)]


def test_worst_first_then_unread_then_a_seeded_choice_of_the_rest():
    boxes = [f"[0.1,0.1,0.5,{0.5 - 0.01 * number:.2f}]" for number in range(9)]  # IoU falls with the number
    evaluation, records = rec([*boxes, "none", "what?"])
    groups = gallery(evaluation, records, lambda index: None, each=2)
    assert list(groups) == ["worst by mean_iou", "not parsed", "random"]
    assert shown(groups["worst by mean_iou"]) == [8, 7]
    assert shown(groups["not parsed"]) == [9, 10]
    chosen = shown(groups["random"])
    assert len(set(chosen)) == 2
    assert set(chosen) <= set(range(7))
    assert gallery(evaluation, records, lambda index: None, each=2) == groups
    others = {
        tuple(shown(gallery(evaluation, records, lambda index: None, each=2, seed=n)["random"])) for n in range(9)
    }
    assert len(others) > 1


def test_worst_is_by_the_evaluators_own_first_metric_of_single_answers():
    records = [
        Record(i, str(i), pred, "", {"answers": ["yes"]}, meta={"category": "random"})
        for i, pred in enumerate(["yes", "no", "yes"])
    ]
    evaluation = EVALUATORS.build({"type": "POPEEvaluator"}).evaluate(records)
    assert next(iter(evaluation.metrics)) == "f1"  # no single answer has one
    assert ranking_metric(evaluation) == "accuracy"
    assert shown(gallery(evaluation, records, lambda index: None, each=1)["worst by accuracy"]) == [1]
    assert ranking_metric(rec(["none"])[0]) == "mean_iou"


def test_boxes_are_drawn_in_the_originals_pixels_and_points_as_crosses():
    truth = Places([[10, 20, 110, 220]], [])
    svg = picture_svg(Image.new("RGB", (640, 480)), truth, Places([], [(300, 200)]))
    assert 'viewBox="0 0 640 480"' in svg
    assert '<g class="place box truth"><rect x="10.00" y="20.00" width="100.00" height="200.00"' in svg
    # The arms of a cross are a thirtieth of the longer side: 640 / 30 = 21.33.
    assert '<g class="place point predicted"><path d="M278.67 178.67L321.33 221.33M278.67 221.33L321.33 178.67"' in svg


def test_predicted_and_true_points_are_drawn_where_the_evaluator_reads_points():
    evaluator = EVALUATORS.build({"type": "PointingEvaluator"})
    evaluator.formatter = PlainFormatter()
    truth = {"boxes": [[10, 10, 50, 50]], "points": [[30, 30]]}
    records = [Record(0, "0", "[0.3,0.4]", "", truth, [FRAME])]
    image = Image.new("RGB", (100, 100))
    markup = gallery(evaluator.evaluate(records), records, lambda index: image)["worst by accuracy"]
    assert markup.count('class="place box truth"') == markup.count('class="place point truth"') == 1
    assert 'class="place point predicted"><path d="M26.67 36.67' in markup  # around (30, 40)


def test_all_boxes_of_a_sentence_are_drawn():
    evaluator = EVALUATORS.build({"type": "PhraseGroundingEvaluator"})
    evaluator.formatter = PlainFormatter()
    phrases = [{"text": "a", "boxes": [[1, 1, 9, 9], [2, 2, 9, 9]]}, {"text": "b", "boxes": []}]
    records = [Record(0, "0", "a [0.1,0.1,0.2,0.2] b [0.3,0.3,0.4,0.4]", "", {"phrases": phrases}, [FRAME])]
    image = Image.new("RGB", (100, 100))
    markup = "".join(gallery(evaluator.evaluate(records), records, lambda index: image).values())
    assert markup.count('class="place box truth"') == markup.count('class="place box predicted"') == 2


def test_a_card_shows_its_texts_as_text_and_needs_no_picture():
    record = Record(3, "3", "<img src=x>", "<i>", meta={"prompt": "<script>"})
    card = answer_card(record, None, Places(), "a & b")
    assert card == (
        "<div class=card><b>&lt;script&gt;</b><p class=truth>&lt;i&gt;</p><p class=predicted>&lt;img src=x&gt;</p>"
        "<small>#3 a &amp; b</small></div>"
    )
