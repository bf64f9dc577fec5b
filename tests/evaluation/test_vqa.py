import gzip
import json
import random

import pytest

from mllm.errors import ConfigError, DataError
from mllm.evaluation.vqa import VARIANTS
from mllm.evaluation.vqa_text import CONTRACTIONS, m4c_form, official_form
from mllm.registry import EVALUATORS
from mllm.structures import Record


def _evaluator(variant="official"):
    return EVALUATORS.build({"type": "VQAEvaluator", "variant": variant})


def _record(pred, answers, index=0, **meta):
    return Record(index, str(index), pred, truth={"answers": answers}, meta=meta)


def _accuracy(pred, answers, variant="official"):
    return _evaluator(variant).evaluate([_record(pred, answers)]).metrics["vqa_accuracy"]


@pytest.mark.parametrize(
    ("matching", "accuracy"),
    # One of ten: left out it gives 0, nine times 1/3 are 3, over ten 0.3. Two: 2 x 1/3 + 8 x 2/3 = 6. Three:
    # 3 x 2/3 + 7 x 1 = 9. Four: at least three are left each time.
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0), (10, 1.0)],
)
@pytest.mark.parametrize("variant", ["official", "always-normalise", "m4c"])
def test_accuracy_over_the_leave_one_out_sets(matching, accuracy, variant):
    answers = ["red"] * matching + [f"other {number}" for number in range(10 - matching)]
    assert _accuracy("red", answers, variant) == pytest.approx(accuracy)
    assert _accuracy("red", random.Random(0).sample(answers, 10), variant) == pytest.approx(accuracy)


def test_official_compares_as_it_stands_where_all_ten_agree():
    # Ten equal answers are not normalised, nor is the prediction; one other answer switches normalisation on.
    assert _accuracy("Unanswerable", ["unanswerable"] * 10) == 0
    assert _accuracy("unanswerable\n", ["unanswerable"] * 10) == 1
    assert _accuracy("2", ["two"] * 10) == 0
    assert _accuracy("Unanswerable.", ["unanswerable"] * 9 + ["no"]) == 1
    assert _accuracy("2", ["two"] * 9 + ["three"]) == 1


@pytest.mark.parametrize("variant", ["always-normalise", "m4c"])
def test_the_other_variants_always_normalise(variant):
    assert _accuracy("Unanswerable", ["unanswerable"] * 10, variant) == 1
    assert _accuracy("the 2", ["two"] * 10, variant) == 1


def test_m4c_has_forms_of_its_own():
    # m4c deletes the comma; the official rules put a space in its place.
    assert [_accuracy("red,blue", ["redblue"] * 9 + ["red"], variant) for variant in VARIANTS] == [0, 0, 1]
    assert [_accuracy("red,blue", ["red blue"] * 9 + ["red"], variant) for variant in VARIANTS] == [1, 1, 0]


@pytest.mark.parametrize(
    ("text", "official", "m4c"),
    [
        ("A  Red\tCar", "red car", "red car"),  # lower case, spaces, articles
        ("None", "0", "0"),
        ("eleven", "eleven", "eleven"),  # number words end at ten
        ("dont", "don't", "don't"),
        ("couldnt've", "couldn't've", "couldn't've"),  # one forgotten apostrophe of two
        ("couldntve", "couldntve", "couldntve"),  # two forgotten ones are not in the authors' table
        ("shes", "shes", "shes"),
        ("somebody'd", "somebodyd", "somebodyd"),
        ("coca-cola", "coca cola", "coca cola"),  # a mark becomes a space
        ("stop - go", "stop go", "stop go"),  # beside a space it is deleted
        ("a-b -c", "ab c", "ab c"),  # … and with it all of its kind
        ("100,978", "100978", "100978"),
        ("1,000-2", "10002", "1000 2"),  # comma between digits deletes every mark; m4c has no comma left by then
        ("red,blue", "red blue", "redblue"),  # m4c deletes commas first
        ("2:50 pm", "2:50 pm", "2:50 pm"),  # colons stay
        ("3.5", "3.5", "3.5"),  # a stop before a digit stays
        ("U.S.A.", "usa", "usa"),
        ("end. 5.", "end 5", "end 5"),
        ("girl's", "girl's", "girl 's"),  # m4c makes 's a word
        ("what?", "what", "what"),
        ("the", "", ""),
    ],
)
def test_the_forms_that_are_compared(text, official, m4c):
    assert official_form(text) == official
    assert m4c_form(text) == m4c


def test_contractions_lack_one_apostrophe():
    assert CONTRACTIONS["ow's'at"] == CONTRACTIONS["'ows'at"] == CONTRACTIONS["'ow'sat"] == "'ow's'at"
    assert CONTRACTIONS["yall'd've"] == CONTRACTIONS["y'alld've"] == CONTRACTIONS["y'all'dve"] == "y'all'd've"
    assert "lets" not in CONTRACTIONS


def test_empty_answers_and_ungenerated_ones_score_nothing():
    # The answer "the" has the empty form; nothing answered must not match it.
    records = [
        _record(" \n", ["the"] * 9 + ["a"]),
        Record(1, "1", "", failure="val[1]: image is missing"),
        _record("the", ["the"] * 9 + ["a"], 2),
    ]
    result = _evaluator().evaluate(records)
    assert result.metrics["vqa_accuracy"] == pytest.approx(1 / 3)
    assert result.failures == {"empty answer": 1, "not generated": 1}


def test_tables_by_answer_type_question_type_and_answerability():
    records = [
        _record("yes", ["yes"] * 10, 0, category="yes/no", question_type="is the", answerable=1),
        _record("no", ["yes"] * 10, 1, category="yes/no", question_type="is this", answerable=1),
        _record("unanswerable", ["unanswerable"] * 10, 2, category="unanswerable", answerable=0),
    ]
    tables = _evaluator().evaluate(records).tables
    assert tables["answer_type"] == {
        "unanswerable": {"vqa_accuracy": 1.0, "samples": 1},
        "yes/no": {"vqa_accuracy": 0.5, "samples": 2},
    }
    assert tables["question_type"]["is this"]["vqa_accuracy"] == 0
    assert tables["answerable"]["answerable"] == {"vqa_accuracy": 0.5, "samples": 2}
    assert tables["answerable"]["unanswerable"]["vqa_accuracy"] == 1


def test_the_signature_names_the_variant():
    signature = _evaluator("m4c").evaluate([_record("a", ["b"] * 10)]).signature
    assert signature == "vqa|variant=m4c|answers=10|leave-one-out=index|n=1|fail=0.0%"


def test_wrong_options_and_truths_are_errors():
    with pytest.raises(ConfigError, match="did you mean 'official'"):
        _evaluator("offical")
    with pytest.raises(DataError, match="record 0: 1 answers; VQA accuracy is defined over 10"):
        _accuracy("a", ["a"])
    with pytest.raises(DataError, match="needs texts in the truth's 'answers'; the truth has question"):
        _evaluator().evaluate([Record(0, "0", "", truth={"question": "?"})])


def test_llavas_textvqa_number(shared_data):
    folder = shared_data / "llava15_eval_outputs" / "textvqa"
    annotations = json.loads(gzip.decompress((folder / "val_annotations_vqa_format.json.gz").read_bytes()))
    lines = gzip.decompress((folder / "answers" / "llava-v1.5-13b.jsonl.gz").read_bytes()).decode().splitlines()
    records = []
    for index, (line, row) in enumerate(zip(lines, annotations["annotations"], strict=True)):
        answer = json.loads(line)
        assert answer["question_id"] == row["image_id"]
        records.append(_record(answer["text"], [one["answer"] for one in row["answers"]], index))
    result = _evaluator("m4c").evaluate(records, resamples=0)
    assert len(records) == 5000
    assert 100 * result.metrics["vqa_accuracy"] == pytest.approx(61.254, abs=5e-4)


def test_vizwiz_answers_without_ids_are_left_out_by_their_place(shared_data):
    folder = shared_data / "vizwiz_mini" / "annotations"
    rows = json.loads((folder / "vqa_val_annotations_vqa_format.json").read_text())["annotations"]
    records = [
        _record("Unanswerable", [one["answer"] for one in row["answers"]], index) for index, row in enumerate(rows)
    ]
    scores = _evaluator("always-normalise").evaluate(records).scores
    # "unanswerable" stands 8, 2, 0, 8, 3 times among the first five questions' answers, which bear no answer_id.
    assert [row["vqa_accuracy"] for row in scores[:5]] == pytest.approx([1.0, 0.6, 0.0, 1.0, 0.9])
