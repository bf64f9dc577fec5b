"""What turns turns and images into tensors, and ids into text; it needs no weights and a checkpoint carries it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mllm.conversation.encode import IGNORE_INDEX, Encoded, check_supervision, encode
from mllm.conversation.templates import build_template
from mllm.errors import CheckpointError, DataError
from mllm.registry import FORMATTERS, TRANSFORMS
from mllm.structures import IMAGE_PLACEHOLDER, Turn

PROCESSOR_FILE = "mllm_processor.json"
DEFAULT_CONVERSATION = {
    "template": "vicuna_v1.1",
    "formatter": {"type": "PlainFormatter"},
    "transforms": [{"type": "SquareCanvas"}],
    "max_length": None,
}


class Processor:
    """Turns and images → features → batches, and ids → text; needs no weights and can be pickled into workers.

    ``image`` holds ``size`` (width and height in pixels), ``mean``, ``std``, ``tokens`` (how many an image takes, at
    most) and, where they are not ``<image>`` alone, the ``token`` that stands for one of them and the tokens
    ``start`` and ``end`` around them. ``conversation`` is the config part of that name: template, formatter,
    transforms, max_length. ``family`` is the ``model_args`` that built it: with it a checkpoint can be loaded without
    its config. ``added`` are the tokens that the base's tokenizer lacks.

    A family whose images take another form overrides ``image_ids`` or ``token_count``, ``image_features`` and
    ``collate_images``.
    """

    def __init__(
        self,
        tokenizer: Any,
        image: Mapping[str, Any],
        conversation: Mapping[str, Any],
        generation: Mapping[str, Any] | None = None,
        family: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.image = dict(image)
        self.conversation = {**DEFAULT_CONVERSATION, **conversation}
        self.generation = dict(generation or {})
        self.family = dict(family or {})
        self.added: list[str] = []
        self.template = build_template(self.conversation["template"]).bind(tokenizer)
        self.formatter = FORMATTERS.build(self.conversation["formatter"])
        self.transforms = [TRANSFORMS.build(one) for one in self.conversation["transforms"]]
        self.max_length = self.conversation["max_length"]
        self.image_token_id = self._id_of(self.image.get("token", IMAGE_PLACEHOLDER))
        self._around = [[self._id_of(self.image[side])] if self.image.get(side) else [] for side in ("start", "end")]
        self._mean = np.asarray(self.image["mean"], dtype=np.float32)
        self._std = np.asarray(self.image["std"], dtype=np.float32)

    def encode(self, turns: Sequence[Turn], images: Sequence[Image.Image], *, generation: bool) -> dict[str, Any]:
        """``input_ids`` and ``labels`` (lists of equal length), and what ``image_features`` gives.

        ``truncated`` and ``answer_tokens`` (trained tokens that hold text of an answer) are for the caller to count.

        With ``generation`` the text ends where the model has to speak. DataError where the length limit cuts an image.
        """
        encoded = self.encode_text(turns, [image.size for image in images], generation=generation)
        features: dict[str, Any] = {"input_ids": encoded.input_ids, "labels": encoded.labels}
        features.update(self.image_features(images))
        features["truncated"], features["answer_tokens"] = encoded.truncated, encoded.answer_tokens
        return features

    def encode_text(
        self, turns: Sequence[Turn], image_sizes: Sequence[tuple[int, int]], *, generation: bool
    ) -> Encoded:
        """Ids and labels of ``encode`` for canvases of these sizes (width, height); no pixel is looked at."""
        segments = self.template.render(turns, generation=generation)
        # A prompt is never cut: it would lose its end, which asks for the answer.
        return self._encoded(segments, image_sizes, None if generation else self.max_length)

    def check_supervision(self, turns: Sequence[Turn], image_sizes: Sequence[tuple[int, int]]) -> Encoded:
        """What training would see of the text; DataError unless its trained ids decode to the answers and end marks."""
        segments = self.template.render(turns, generation=False)
        encoded = self._encoded(segments, image_sizes, self.max_length)
        check_supervision(segments, encoded, self.tokenizer)
        return encoded

    def _encoded(
        self, segments: Sequence[Any], image_sizes: Sequence[tuple[int, int]], max_length: int | None
    ) -> Encoded:
        return encode(
            segments,
            self.tokenizer,
            image_token_ids=[self.image_ids(size) for size in image_sizes],
            max_length=max_length,
            bos=self.template.bos,
        )

    def image_ids(self, size: tuple[int, int]) -> list[int]:
        """The ids that stand in the text for an image whose canvas has this ``size`` (width, height)."""
        start, end = self._around
        return [*start, *[self.image_token_id] * self.token_count(size), *end]

    def token_count(self, size: tuple[int, int]) -> int:
        """How many tokens stand for an image whose canvas has this ``size`` (width, height)."""
        return self.image["tokens"]

    def image_features(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """What the model eats of a sample's images: ``pixel_values`` (images, 3, H, W), None without any."""
        return {"pixel_values": torch.stack([self.pixels(image) for image in images]) if images else None}

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """Normalised pixels (3, H, W), float32; the image must already have the size that the vision tower takes."""
        size = (self.image["size"],) * 2
        if image.size != size:
            width, height = image.size
            raise DataError(
                f"the canvas is {width}x{height} but the vision tower takes {size[0]}x{size[1]}: "
                f"end conversation.transforms with dict(type='Resize', size={size[0]})",
                kind="canvas",
            )
        return self.normalized(image)

    def normalized(self, image: Image.Image) -> torch.Tensor:
        """Pixels (3, H, W), float32, with ``mean`` and ``std`` taken out, of an image of any size."""
        pixels = (np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0 - self._mean) / self._std
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def picture(self, pixels: torch.Tensor) -> Image.Image:
        """The image that ``pixels`` was made of, as the model sees it: the inverse of ``pixels``."""
        values = (pixels.numpy().transpose(1, 2, 0) * self._std + self._mean) * 255.0
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))

    def collate(self, samples: Sequence[Mapping[str, Any]], *, layout: str = "right") -> dict[str, torch.Tensor]:
        """Pad to the longest sample: ids, mask and ``labels`` (B, T), and what ``collate_images`` gives.

        Training pads ``"right"``, generation ``"left"`` (new tokens follow the last one; no labels then).
        """
        length = max(len(sample["input_ids"]) for sample in samples)
        columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for sample in samples:
            count, pad = len(sample["input_ids"]), length - len(sample["input_ids"])
            columns["input_ids"].append(_pad(sample["input_ids"], pad, self.pad_id, layout))
            columns["attention_mask"].append(_pad([1] * count, pad, 0, layout))
            columns["labels"].append(_pad(sample["labels"], pad, IGNORE_INDEX, layout))
        if layout == "left":
            del columns["labels"]
        batch = {name: torch.tensor(rows) for name, rows in columns.items()}
        return {**batch, **self.collate_images(samples)}

    def collate_images(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """``pixel_values`` (images, 3, H, W) of all samples, in order.

        A batch without any image gets one zero image that no token refers to: the family runs its tower on it all the
        same.
        """
        pixels = [sample["pixel_values"] for sample in samples if sample["pixel_values"] is not None]
        size = self.image["size"]
        return {"pixel_values": torch.cat(pixels) if pixels else torch.zeros(1, 3, size, size)}

    @property
    def pad_id(self) -> int:
        """The id that fills a batch; the end mark's where the tokenizer has no pad token (it is masked out)."""
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else self.tokenizer.eos_token_id

    def decode(self, ids: torch.Tensor) -> list[str]:
        """The text of generated ids (B, T), control tokens left out, cut at the template's end mark."""
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [_cut(text, self.template.stop).strip() for text in texts]

    def stop_ids(self) -> list[int]:
        """Ids that end generation: the template's end marks that are one token, and the tokenizer's own."""
        marks = [self._id_of(mark) for mark in self.template.stop]
        return sorted({mark for mark in [*marks, self.tokenizer.eos_token_id] if mark is not None})

    def _id_of(self, token: str) -> int | None:
        """The id of an added token or piece; None where the tokenizer has none of that name."""
        found = self.tokenizer.convert_tokens_to_ids(token)
        return None if found == self.tokenizer.unk_token_id else found

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer, image processor (Hugging Face's form) and ``mllm_processor.json`` into ``folder``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        written = {name: getattr(self, name) for name in ("family", "image", "conversation", "generation", "added")}
        (folder / PROCESSOR_FILE).write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n")
        (folder / "preprocessor_config.json").write_text(json.dumps(self.image_form(), indent=2) + "\n")

    def image_form(self) -> dict[str, Any]:
        """What ``preprocessor_config.json`` says, for other tools: the image processor of transformers."""
        size = self.image["size"]
        return {
            "image_processor_type": "CLIPImageProcessor",
            "crop_size": {"height": size, "width": size},
            "size": {"shortest_edge": size},
            "image_mean": list(self.image["mean"]),
            "image_std": list(self.image["std"]),
            "resample": 3,
        }


def read_saved(folder: str | Path) -> dict[str, Any]:
    """What ``Processor.save_pretrained`` wrote into ``folder`` (family, image, conversation, generation), or {}."""
    path = Path(folder) / PROCESSOR_FILE
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: broken JSON at line {error.lineno} ({error.msg})") from error


def _pad(values: Sequence[int], count: int, fill: int, layout: str) -> list[int]:
    padding = [fill] * count
    return [*values, *padding] if layout == "right" else [*padding, *values]


def _cut(text: str, marks: Sequence[str]) -> str:
    for mark in marks:
        text = text.split(mark, 1)[0] if mark.strip() else text
    return text
