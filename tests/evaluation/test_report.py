from PIL import Image

from mllm.evaluation.report import Section, boxes_svg, write_report
from mllm.grounding.formatter import PlainFormatter
from mllm.registry import EVALUATORS
from mllm.structures import Frame, Record


def test_the_page_is_one_file_with_scores_curves_and_boxes(tmp_path):
    evaluator = EVALUATORS.build({"type": "RECEvaluator"})
    evaluator.formatter = PlainFormatter()
    records = [
        Record(i, str(i), pred, "[0.1,0.1,0.5,0.5]", {"boxes": [[10, 10, 50, 50]]}, [Frame((100, 100), (100, 100))],
               {"prompt": "where is <b>it</b> ?"})
        for i, pred in enumerate(["[0.1,0.1,0.5,0.5]", "no idea", "[0.5,0.5,0.9,0.9]"])
    ]  # fmt: skip
    section = Section("test", evaluator.evaluate(records), records, lambda index: Image.new("RGB", (100, 100), "red"))
    path = tmp_path / "report.html"
    write_report(path, "a <run>", [section], [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    page = path.read_text()
    assert page.count("<svg") == 4  # three pictures and the curve of the loss
    assert "0.3333" in page
    assert "where is &lt;b&gt;it&lt;/b&gt; ?" in page
    assert "no box in the answer" in page
    assert "http" not in page.replace("http-equiv", "")


def test_boxes_are_drawn_in_the_originals_pixels():
    svg = boxes_svg(Image.new("RGB", (640, 480)), [[10, 20, 110, 220]], [])
    assert 'viewBox="0 0 640 480"' in svg
    assert '<rect x="10.00" y="20.00" width="100.00" height="200.00"' in svg


def test_questions_without_a_picture_are_listed_and_categories_have_tables(tmp_path):
    records = [
        Record(i, str(i), pred, "B", {"answer": "B", "choices": ["x", "y"]}, meta={"subject": subject})
        for i, (pred, subject) in enumerate([("B", "<NAT>"), ("A", "<NAT>"), ("B", "LAN")])
    ]
    evaluation = EVALUATORS.build({"type": "ScienceQAEvaluator"}).evaluate(records)
    path = tmp_path / "report.html"
    write_report(path, "a run", [Section("test", evaluation, records, lambda index: None)], [])
    page = path.read_text()
    assert "test by subject" in page
    assert (
        "<tr><td>&lt;NAT&gt;</td><td>0.5000</td><td>2</td></tr><tr><td>LAN</td><td>1.0000</td><td>1</td></tr>" in page
    )
    assert "<svg" not in page
