import pytest

from mllm.errors import ConfigError, DataError
from mllm.grounding.formatter import PlainFormatter
from mllm.registry import EVALUATORS
from mllm.structures import Frame, Record

FRAME = Frame((100, 100), (100, 100))
LEFT, RIGHT = [0, 0, 20, 20], [80, 0, 100, 20]


def _evaluator(**options):
    evaluator = EVALUATORS.build({"type": "PhraseGroundingEvaluator", **options})
    evaluator.formatter = PlainFormatter()
    return evaluator


def _group(*boxes):
    return PlainFormatter().format_boxes([FRAME.normalize(box) for box in boxes])


def _record(pred, *phrases, index=0, **meta):
    truth = {
        "phrases": [
            {"text": f"phrase {n}", "boxes": boxes, "types": types} for n, (boxes, types) in phrases_of(phrases)
        ]
    }
    return Record(index, str(index), pred, truth=truth, frames=[FRAME], meta=meta)


def phrases_of(phrases):
    return enumerate(one if isinstance(one, tuple) else (one, ["people"]) for one in phrases)


def _metrics(record, **options):
    return _evaluator(**options).evaluate([record], resamples=0).metrics


def test_merged_box_asks_for_the_box_around_all_boxes_of_the_phrase():
    # Around both: [0, 0, 100, 20], 101 x 21 whole pixels. One of them alone: 21 x 21 of it, 0.21.
    assert _metrics(_record(_group([0, 0, 100, 20]), [LEFT, RIGHT]))["R@1"] == 1
    assert _metrics(_record(_group(LEFT), [LEFT, RIGHT]))["R@1"] == 0
    assert _metrics(_record(_group(LEFT, RIGHT), [LEFT, RIGHT]))["R@1"] == 1


def test_any_box_asks_for_one_of_them():
    assert _metrics(_record(_group(RIGHT), [LEFT, RIGHT]), protocol="any-box")["R@1"] == 1
    assert _metrics(_record(_group([0, 0, 100, 20]), [LEFT, RIGHT]), protocol="any-box")["R@1"] == 0


def test_plus_one_counts_the_last_pixel():
    # Truth 10 x 10, answer 10 x 4.9: 0.49. As whole pixels 11 x 5.9 of 11 x 11: 0.536.
    record = _record(_group([0, 0, 10, 4.9]), [[0, 0, 10, 10]])
    assert _metrics(record)["R@1"] == 1
    assert _metrics(record, plus_one=False)["R@1"] == 0
    assert _metrics(record, protocol="any-box")["R@1"] == 0
    assert _metrics(record, protocol="any-box", plus_one=True)["R@1"] == 1


def test_half_is_enough():
    # 10 x 5 of 10 x 10: exactly 0.5.
    assert _metrics(_record(_group([0, 0, 10, 5]), [[0, 0, 10, 10]]), plus_one=False)["R@1"] == 1


def test_later_ranks_take_later_candidates():
    far = [[40, 40 + n, 50, 50 + n] for n in range(5)]
    record = _record(_group(*far, LEFT), [LEFT])
    metrics = _metrics(record, several="ranked", ranks=(1, 5, 6))
    assert [metrics[name] for name in ("R@1", "R@5", "R@6", "upper_bound")] == [0, 0, 1, 1]
    assert _metrics(record, several="ranked", ranks=(5,)) == {"R@5": 0, "upper_bound": 1, "failure_rate": 0}


def test_groups_belong_to_phrases_in_order_and_a_missing_one_is_a_miss():
    # First right, second has the first's box, third has none.
    record = _record(f"a {_group(LEFT)} and b {_group(LEFT)}.", [LEFT], [RIGHT], [LEFT])
    assert _metrics(record)["R@1"] == pytest.approx(1 / 3)


def test_phrases_without_boxes_are_left_out():
    assert _metrics(_record(_group(LEFT), [], [LEFT]))["R@1"] == 1
    assert _metrics(_record(_group(LEFT), []))["R@1"] == 0


def test_the_unit_is_the_phrase_not_the_sentence():
    both = _record(f"{_group(LEFT)} {_group(RIGHT)} {_group(RIGHT)}", [LEFT], [RIGHT], [RIGHT])
    wrong = _record(_group(LEFT), [RIGHT], index=1)
    assert _evaluator().evaluate([both, wrong]).metrics["R@1"] == pytest.approx(3 / 4)


def test_a_phrase_of_two_types_counts_in_both():
    record = _record(f"{_group(LEFT)} {_group(LEFT)}", ([LEFT], ["people", "clothing"]), ([RIGHT], ["people"]))
    table = _evaluator().evaluate([record]).tables["phrase_type"]
    assert table["people"]["R@1"] == 0.5
    assert table["people"]["samples"] == 2
    assert table["clothing"]["R@1"] == table["clothing"]["samples"] == 1


@pytest.mark.parametrize("pred", ["", "a man", "[0.1,0.2]"])
def test_an_answer_without_boxes_is_counted_and_all_its_phrases_are_missed(pred):
    records = [_record(pred, [LEFT], [RIGHT]), _record(_group(LEFT), [LEFT], index=1)]
    result = _evaluator().evaluate(records)
    assert result.failures == {"no box in the answer": 1}
    assert result.metrics["R@1"] == pytest.approx(1 / 3)


def test_the_signature_names_the_protocol():
    assert "truth=merged-box|iou=plus-one|" in _evaluator().signature()
    assert "several=enclose" in _evaluator().signature()
    assert "truth=any-box|iou=cont|" in _evaluator(protocol="any-box").signature()


def test_wrong_options_and_truths_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'any-box'"):
        _evaluator(protocol="anybox")
    with pytest.raises(ConfigError, match="whole numbers from 1"):
        _evaluator(ranks=(0,))
    with pytest.raises(DataError, match="needs the truth's 'phrases'; the truth has boxes"):
        _evaluator().evaluate([Record(0, "0", _group(LEFT), truth={"boxes": [LEFT]}, frames=[FRAME])])
