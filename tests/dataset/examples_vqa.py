"""For each conversation and question source the arguments of a small working instance, for the contract test."""

import base64
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image


def _image(path: Path, colour: str = "teal", image_size: tuple[int, int] = (48, 36)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", image_size, colour).save(path)


def _json(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def _llava_instruct(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    root = shared_data / "xtuner_tutorial" / "llava_data"
    return {"path": str(root / "unique_data.json"), "image_root": str(root), "exif": "ignore"}


def _llava_questions(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    # The photographs of the 90 questions are not at hand: the files are drawn.
    root = shared_data / "llava_misc"
    for line in (root / "qa90_questions.jsonl").read_text(encoding="utf-8").splitlines():
        _image(tmp_path / json.loads(line)["image"])
    answers = str(root / "qa90_gpt4_answer.jsonl")
    return {"path": str(root / "qa90_questions.jsonl"), "answers": answers, "image_root": str(tmp_path)}


def _xtuner_messages(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    root = shared_data / "xtuner_tests"
    path = root / "resource" / "mllm_sft_multi_image_example_data.jsonl"
    return {"path": str(path), "image_root": str(root)}


def _rs_instructions(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    root = shared_data / "rs4_mini"
    return {"path": str(root / "dataset.json"), "image_root": str(root / "imagenes")}


def _nwpu_captions(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    root = shared_data / "rs4_mini"
    images = root / "imagenes" / "NWPU" / "NWPU_images"
    return {"path": str(root / "dataset_nwpu.json"), "image_root": str(images), "split": "val"}


def _rsicd(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    root = shared_data / "rs4_mini"
    return {"path": str(root / "dataset_rsicd.json"), "image_root": str(root / "imagenes" / "RSICD" / "images")}


def _rsvqa(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    root = shared_data / "rs4_mini"
    names = {"files": "LR_reduced_{part}.json", "image_pattern": "{image_id}.png"}
    return {"root": str(root), "image_root": str(root / "imagenes" / "LR" / "Train"), **names}


def _rsivqa(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    # Two of its four images are at hand.
    root = shared_data / "rs4_mini"
    lines = (root / "RSIVQA_dota_val_sample.txt").read_text(encoding="utf-8").splitlines()
    path = tmp_path / "dota_val_vqa2.txt"
    path.write_text("\n".join(line for line in lines if line.startswith(("P0706", "P1888"))), encoding="utf-8")
    return {"path": str(path), "image_root": str(root / "imagenes" / "DOTA" / "images")}


def _dota(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    root = shared_data / "rs4_mini"
    return {"label_root": str(root / "DOTA_labelTxt"), "image_root": str(root / "imagenes" / "DOTA" / "images")}


def _scienceqa(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    # The images of ScienceQA are not at hand: those of the split are drawn.
    root = shared_data / "scienceqa_mini"
    problems = json.loads((root / "problems.json").read_text(encoding="utf-8"))
    for pid, problem in problems.items():
        if problem["image"] and problem["split"] == "val":
            _image(tmp_path / "val" / pid / "image.png")
    return {"root": str(root), "image_root": str(tmp_path), "split": "val", "images": "with"}


def _scienceqa_cqma(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    root = shared_data / "scienceqa_mini"
    rows = json.loads((root / "llava_test_CQM-A.json").read_text(encoding="utf-8"))
    rows = [row for row in rows if "image" in row]
    for row in rows:
        _image(tmp_path / row["image"])
    path = _json(tmp_path / "llava_test_CQM-A.json", rows)
    return {"path": path, "image_root": str(tmp_path), "problems": str(root / "problems.json")}


def _vqav2(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    questions, annotations = [], []
    for number, (question, answers) in enumerate(
        [("What colour is it?", ["teal"] * 7 + ["green"] * 3), ("Is it round?", ["no"] * 10)]
    ):
        _image(tmp_path / f"COCO_val2014_{number:012d}.jpg")
        questions.append({"image_id": number, "question_id": number * 1000, "question": question})
        annotations.append(
            {
                "image_id": number,
                "question_id": number * 1000,
                "question_type": "what" if number == 0 else "is it",
                "answer_type": "other" if number == 0 else "yes/no",
                "multiple_choice_answer": answers[0],
                "answers": [
                    {"answer": answer, "answer_confidence": "yes", "answer_id": i}
                    for i, answer in enumerate(answers, 1)
                ],
            }
        )
    return {
        "path": _json(tmp_path / "questions.json", {"questions": questions}),
        "annotations": _json(tmp_path / "annotations.json", {"annotations": annotations}),
        "image_root": str(tmp_path),
    }


def _textvqa(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    # Real questions and answers; the photographs of the first ones are drawn.
    parts = {}
    for part in ("questions", "annotations"):
        source = shared_data / "llava15_eval_outputs" / "textvqa" / f"val_{part}_vqa_format.json.gz"
        rows = json.loads(gzip.decompress(source.read_bytes()))[part][:8]
        parts[part] = _json(tmp_path / f"{part}.json", {part: rows})
        for row in rows:
            _image(tmp_path / f"{row['image_id']}.jpg")
    options = {"layout": "vqa", "annotations": parts["annotations"]}
    return {"path": parts["questions"], "image_root": str(tmp_path), **options}


def _gqa(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    _image(tmp_path / "2354786.jpg")
    common = {"imageId": "2354786", "types": {"structural": "query", "semantic": "attr"}}
    rows = {
        "02930152": {**common, "question": "Which colour is it?", "answer": "teal", "fullAnswer": "It is teal."},
        "02930153": {**common, "question": "Is it empty?", "answer": "yes", "fullAnswer": "Yes, it is empty."},
    }
    return {"path": _json(tmp_path / "val_balanced_questions.json", rows), "image_root": str(tmp_path)}


def _pope(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    root = shared_data / "pope_mini"
    return {"path": str(root / "coco" / "coco_pope_random.json"), "image_root": str(root / "val2014")}


def _mimic_it(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    images, instructions = {}, {}
    for number, colour in enumerate(("red", "blue", "lime")):
        stream = io.BytesIO()
        Image.new("RGB", (32, 24), colour).save(stream, "JPEG")
        images[f"LA_IMG_{number}"] = base64.b64encode(stream.getvalue()).decode("ascii")
        row = {"instruction": "Which colour is it?", "answer": f"It is {colour}.", "image_ids": [f"LA_IMG_{number}"]}
        instructions[f"LA_00_INS_{number}"] = {**row, "rel_ins_ids": []}
    context = {"LA_00_INS_1": ["LA_00_INS_0"], "LA_00_INS_2": ["LA_00_INS_0", "LA_00_INS_1"]}
    return {
        "instructions": _json(tmp_path / "LA_instructions.json", {"meta": {}, "data": instructions}),
        "images": _json(tmp_path / "LA.json", images),
        "context": _json(tmp_path / "LA_train.json", context),
    }


EXAMPLES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "DOTADetection": _dota,
    "GQA": _gqa,
    "LLaVAInstruct": _llava_instruct,
    "LLaVAQuestions": _llava_questions,
    "MIMICIT": _mimic_it,
    "NWPUCaptions": _nwpu_captions,
    "POPE": _pope,
    "RSICD": _rsicd,
    "RSInstructions": _rs_instructions,
    "RSIVQA": _rsivqa,
    "RSVQALR": _rsvqa,
    "ScienceQA": _scienceqa,
    "ScienceQACQMA": _scienceqa_cqma,
    "TextVQA": _textvqa,
    "VQAv2": _vqav2,
    "XTunerMessages": _xtuner_messages,
}
