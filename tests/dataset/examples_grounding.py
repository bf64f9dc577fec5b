"""For each data set of regions, grounded captions, captions and pointing: arguments of a small working instance."""

import json

from PIL import Image

ENTITIES_XML = """<annotation>
<filename>1.jpg</filename><size><width>200</width><height>100</height><depth>3</depth></size>
<object><name>7</name><bndbox><xmin>11</xmin><ymin>21</ymin><xmax>51</xmax><ymax>61</ymax></bndbox></object>
<object><name>7</name><name>8</name><bndbox><xmin>101</xmin><ymin>1</ymin><xmax>200</xmax><ymax>100</ymax></bndbox></object>
<object><name>9</name><nobndbox>1</nobndbox></object>
<object><name>10</name><scene>1</scene></object>
</annotation>
"""
ENTITIES_SENTENCES = """[/EN#7/people Two men] sit beside [/EN#8/people/clothing a man] in [/EN#10/scene a park] .
[/EN#0/notvisual There] are [/EN#7/people people] , [/EN#9/other the wind] and [/EN#7/people more of them] .
It is a fine day .
[/EN#9/other Wind] blows .
[/EN#8/people One man] stands up .
"""


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_json(path, value):
    path.write_text(json.dumps(value))
    return str(path)


def draw(path, size=(200, 100)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 140, 60)).save(path)


def write_visual_genome(folder):
    """Two images in different folders with two regions each, the first phrase with trailing spaces."""
    draw(folder / "VG_100K_2" / "1.jpg")
    draw(folder / "VG_100K" / "5.jpg")
    size = {"width": 200, "height": 100, "coco_id": None, "flickr_id": None}
    url = "https://cs.stanford.edu/people/rak248"
    images = [
        {"image_id": 5, "url": f"{url}/VG_100K/5.jpg", **size},
        {"image_id": 1, "url": f"{url}/VG_100K_2/1.jpg", **size},
    ]

    def region(number, image, phrase, x, y, width, height):
        box = {"x": x, "y": y, "width": width, "height": height}
        return {"region_id": number, "image_id": image, "phrase": phrase, **box}

    regions = [
        {
            "id": 1,
            "regions": [
                region(10, 1, "a red door  ", 20, 10, 40, 30),
                region(11, 1, "the roof of the old house", 0, 0, 200, 50),
            ],
        },
        {"id": 2, "regions": []},
        {"id": 5, "regions": [region(12, 5, "grass", 190, 90, 30, 20), region(13, 5, "two dogs", 1, 2, 3, 4)]},
    ]
    return {
        "regions": write_json(folder / "region_descriptions.json", regions),
        "image_data": write_json(folder / "image_data.json", images),
        "image_root": str(folder),
    }


def write_entities(folder):
    """One image in the authors' layout: boxes counted from 1, shared boxes, nobndbox, scene, chain 0."""
    for name in ("Sentences", "Annotations"):
        (folder / name).mkdir(parents=True)
    draw(folder / "images" / "1.jpg")
    (folder / "train.txt").write_text("1\n")
    (folder / "UNRELATED_CAPTIONS").write_text("# format: <imageID> <sentence number>\n1 3\n99 5\n")
    (folder / "Sentences" / "1.txt").write_text(ENTITIES_SENTENCES)
    (folder / "Annotations" / "1.xml").write_text(ENTITIES_XML)
    return {"root": str(folder), "image_root": str(folder / "images")}


def write_flattened(folder):
    """Two lines of ``CWB_flickr30k``; the second has no box."""
    draw(folder / "1.jpg")
    rows = [
        {
            "id": 0,
            "image_id": 1,
            "boxes": [[10, 20, 50, 60], [100, 0, 199, 99]],
            "sentence": "<ph_st>Two young guys<ph_ed> with shaggy hair near <ph_st>a man<ph_ed> .",
            "boxes_seq": [[0, 1], [1]],
        },
        {"id": 1, "image_id": 1, "boxes": [], "sentence": "It is a fine day .", "boxes_seq": []},
        {
            "id": 2,
            "image_id": 1,
            "boxes": [[10, 20, 50, 60]],
            "sentence": "<ph_st>Someone<ph_ed> waits .",
            "boxes_seq": [[0]],
        },
    ]
    return {"path": write_lines(folder / "flickr30k.jsonl", rows), "image_root": str(folder)}


def write_point_qa_local(folder):
    draw(folder / "a.jpg")
    row = {"file_path": "a.jpg", "question": "What colour is it? ", "answer": "red"}
    rows = [{**row, "bbox": [10, 20, 50, 60], "point": [30, 40]}, {**row, "bbox": [0, 0, 9, 9], "point": [5, 5]}]
    return {"path": write_lines(folder / "local.jsonl", rows), "image_root": str(folder)}


def write_point_qa_visual7w(folder):
    draw(folder / "a.jpg")
    row = {
        "file_path": "a.jpg",
        "question": "Which object can be opened?",
        "candidates": [[0, 0, 10, 10], [20, 20, 60, 60], [100, 50, 150, 90], [5, 60, 25, 99]],
        "answer": [100, 50, 150, 90],
        "point": [125, 70],
    }
    return {"path": write_lines(folder / "v7w.jsonl", [row, row]), "image_root": str(folder)}


def _caption_lines(folder):
    draw(folder / "a.jpg")
    draw(folder / "b.jpg")
    rows = [("a.jpg", "A field. "), ("b.jpg", "Grass."), ("a.jpg", "Green land.")]
    lines = [{"img_path": name, "caption": caption} for name, caption in rows]
    return {"path": write_lines(folder / "captions.jsonl", lines), "image_root": str(folder)}


def _refcoco_lines(shared, name="REC_refcoco_unc_val"):
    root = shared / "refcoco_mini"
    return {"path": str(root / f"shikra_jsonl/{name}.jsonl"), "image_root": str(root / "images/train2014")}


def _flat(shared, folder):
    image = "COCO_train2014_000000370162"
    row = {"img_id": f"{image}_0", "bbox": [2.7, 70.72, 214.42, 325.23], "height": 400, "width": 640}
    rows = [{**row, "sents": text} for text in ("left bald", "bald guy on left")]
    return {**_refcoco_lines(shared), "path": write_json(folder / "refcoco_val.json", rows)}


def _refer(shared):
    root = shared / "refcoco_mini"
    return {"root": str(root), "image_root": str(root / "images/train2014"), "split": "val"}


def _entities(shared):
    return {
        "root": str(shared / "flickr30k_format_from_coco"),
        "image_root": str(shared / "coco_tiny/train2017"),
        "split": "train",
    }


def _vizwiz_vqa(shared):
    root = shared / "vizwiz_mini"
    return {
        "path": str(root / "annotations/vqa_val_questions_vqa_format.json"),
        "annotations": str(root / "annotations/vqa_val_annotations_vqa_format.json"),
        "layout": "vqa",
        "image_root": str(root / "val"),
    }


EXAMPLES = {
    "RECFlatJson": _flat,
    "REGJsonl": lambda shared, folder: _refcoco_lines(shared),
    "RefCOCOReverse": lambda shared, folder: _refer(shared),
    "GCJsonl": lambda shared, folder: _refcoco_lines(shared),
    "VisualGenomeREC": lambda shared, folder: {**write_visual_genome(folder), "clip": True},
    "VisualGenomeREG": lambda shared, folder: {**write_visual_genome(folder), "clip": True},
    "Flickr30kEntities": lambda shared, folder: _entities(shared),
    "Flickr30kJsonl": lambda shared, folder: write_flattened(folder),
    "Flickr30kReverse": lambda shared, folder: write_flattened(folder),
    "COCOCaption": lambda shared, folder: {
        "path": str(shared / "coco_tiny/annotations/captions_val2017.json"),
        "image_root": str(shared / "coco_tiny/val2017"),
    },
    "CaptionJsonl": lambda shared, folder: _caption_lines(folder),
    "VizWizCaption": lambda shared, folder: {
        "path": str(shared / "vizwiz_mini/annotations/val.json"),
        "image_root": str(shared / "vizwiz_mini/val"),
    },
    "VizWizVQA": lambda shared, folder: _vizwiz_vqa(shared),
    "PointQALocal": lambda shared, folder: write_point_qa_local(folder),
    "PointQAVisual7W": lambda shared, folder: write_point_qa_visual7w(folder),
}
