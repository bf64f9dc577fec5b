import re

import pytest
from PIL import Image

from mllm.evaluation.curves import curve_svg
from mllm.evaluation.report import Section, write_report
from mllm.grounding.formatter import PlainFormatter
from mllm.registry import EVALUATORS
from mllm.structures import Frame, Record


def rec_section(answers, name="test", image_of=lambda index: Image.new("RGB", (100, 100), "red")):
    """The truth is (10, 10, 50, 50) in a 100 x 100 picture that holds another object at (50, 50, 90, 90)."""
    evaluator = EVALUATORS.build({"type": "RECEvaluator"})
    evaluator.formatter = PlainFormatter()
    truth = {"boxes": [[10, 10, 50, 50]], "other_boxes": [[50, 50, 90, 90]]}
    records = [
        Record(i, str(i), pred, "[0.1,0.1,0.5,0.5]", truth, [Frame((100, 100), (100, 100))],
               {"prompt": "where is <b>it</b> ?"})
        for i, pred in enumerate(answers)
    ]  # fmt: skip
    return Section(name, evaluator.evaluate(records), records, image_of)


def page_of(folder, sections, history=()):
    write_report(folder / "report.html", "a <run>", sections, list(history))
    return (folder / "report.html").read_text()


ANSWERS = ["[0.1,0.1,0.5,0.5]", "no idea", "[0.5,0.5,0.9,0.9]"]


def test_the_page_is_one_file_with_scores_curves_and_boxes(tmp_path):
    page = page_of(tmp_path, [rec_section(ANSWERS)], [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    assert page.count("<svg class=picture") == 3
    assert page.count("<figure") == 2  # the loss and the IoU histogram
    assert "<strong>0.3333</strong>" in page
    assert "where is &lt;b&gt;it&lt;/b&gt; ?" in page
    assert "<title>a &lt;run&gt;</title>" in page
    assert "<small>#1 no box in the answer · mean_iou 0.000</small>" in page
    assert "<small>#2 mean_iou 0.000 · wrong instance</small>" in page
    assert "http" not in page.replace("http-equiv", "")


def test_cards_and_rows_give_the_value_with_its_interval(tmp_path):
    section = rec_section(ANSWERS)
    low, high = section.evaluation.intervals["acc@0.5"]
    page = page_of(tmp_path, [section])
    shown = f"<small class=soft>{low:.3f} – {high:.3f}</small>"
    assert f"<span class=soft>acc@0.5</span><strong>0.3333</strong>{shown}" in page
    assert f"<td>0.3333<br>{shown}</td>" in page


def test_every_set_is_a_row_and_a_set_of_errors_and_the_first_with_pictures_has_the_cards(tmp_path):
    blind = rec_section(["no idea"] * 3, "test (blanked pictures)", None)
    page = page_of(tmp_path, [blind, rec_section(ANSWERS)])
    assert "<h2>test: 3 samples</h2>" in page
    kinds = re.search("<h2>Boxes</h2>.*?</table>", page)[0]
    rows = [re.findall(r"<b>(.*?)</b>|>(\d+)</small>", row) for row in kinds.split("<tr>")[2:]]
    assert [[name or number for name, number in row] for row in rows] == [
        # right, wrong instance, swapped, loose, miss, not parsed
        ["test (blanked pictures)", "0", "0", "0", "0", "0", "3"],
        ["test", "1", "1", "0", "0", "0", "1"],
    ]
    assert page.count("<h2>Boxes</h2>") == 1
    assert "IoU 1.00" not in page
    assert "IoU 0.95 – 1.00: 1" in page
    assert "2 answers read" in page


def test_rec_scores_stand_by_object_size_too(tmp_path):
    page = page_of(tmp_path, [rec_section(ANSWERS)])
    # 40 x 40 pixels are 1600, between COCO's 1024 and 9216.
    table = re.search("<th>object size</th>.*?</table>", page)[0]
    assert re.findall("<td>(.*?)</td>", table) == ["medium", "0.3333", "0.3333", "0.3333", "0.3333", "3"]


def test_questions_without_a_picture_are_listed_and_categories_have_tables(tmp_path):
    records = [
        Record(i, str(i), pred, "B", {"answer": "B", "choices": ["x", "y"]}, meta={"subject": subject, "prompt": "q"})
        for i, (pred, subject) in enumerate([("B", "<NAT>"), ("A", "<NAT>"), ("B", "LAN")])
    ]
    evaluation = EVALUATORS.build({"type": "ScienceQAEvaluator"}).evaluate(records)
    page = page_of(tmp_path, [Section("test", evaluation, records, lambda index: None)])
    assert "test by category" in page
    assert "<th>subject</th>" in page
    assert (
        "<tr><td>&lt;NAT&gt;</td><td>0.5000</td><td>2</td></tr><tr><td>LAN</td><td>1.0000</td><td>1</td></tr>" in page
    )
    assert page.count("class=card><b>q</b>") == 3
    assert "<svg" not in page
    assert "<h2>Boxes" not in page


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_curve_leaves_out_what_is_no_number(bad):
    figure = curve_svg("loss", [(1, 2.0), (2, bad), (3, 1.0)])
    assert "nan" not in figure
    assert "inf" not in figure
    assert figure.count("<circle") == 2
    assert "no finite value" in curve_svg("loss", [(1, bad)])
