"""Questions that are spoken: a sound file stands for the text, a recogniser turns it into words."""

from __future__ import annotations

import re
import wave
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mllm.dataset.mixture import Mixture, same_source
from mllm.errors import DataError
from mllm.registry import DATASETS
from mllm.structures import IMAGE_PLACEHOLDER
from mllm.utils.imports import require
from mllm.utils.storage import resolve_path

RATE = 16000
READ = (".wav", ".flac")
SOUND = re.compile(r"[^\n]+\.(?:wav|flac|mp3|ogg|opus|m4a|aac|webm)", re.IGNORECASE)
KNOWN_TEXTS = 100_000


@DATASETS.register_module()
class SpokenQuestions(Mixture):
    """The given data set; a human turn that is the name of a ``.wav`` or ``.flac`` file becomes the text spoken in it.

    ``<image>`` may stand beside the name; a name with spaces counts where there is such a file. ``recogniser`` is
    "pocketsphinx" (English, offline, ``mllm[speech]``), or the folder of a speech model that transformers reads
    (Whisper). Each file is recognised once a process.

    Args:
        dataset: the data set with the names in its questions.
        sound_root: the folder that the names start from.
        recogniser: "pocketsphinx" or a folder.
    """

    def __init__(self, dataset: Mapping[str, Any], sound_root: str, recogniser: str = "pocketsphinx") -> None:
        super().__init__([dataset])
        self.sound_root, self.recogniser = Path(resolve_path(sound_root)), recogniser
        self._texts: dict[str, str] = {}

    def locate(self, index: int, epoch: int) -> tuple[int, int, int]:
        """The same place."""
        return 0, index, epoch

    def rows_of_parts(self, indices: np.ndarray | None) -> list[np.ndarray | None]:
        """The same rows."""
        return [indices]

    def same_source(self, index: int, step: int) -> int:
        """As the data set says."""
        return same_source(self.datasets[0], index, step)

    def item(self, index: int, epoch: int = 0) -> Any:
        """The item, its spoken questions as text; ``meta["spoken"]`` lists the files."""
        item = dict(super().item(index, epoch))
        spoken: list[str] = []
        item["conversations"] = [self._written(turn, spoken) for turn in item["conversations"]]
        if spoken:
            item["meta"] = {**(item.get("meta") or {}), "spoken": spoken}
        return item

    def _written(self, turn: Mapping[str, Any], spoken: list[str]) -> Mapping[str, Any]:
        name = turn["value"].replace(IMAGE_PLACEHOLDER, "").strip()
        if turn["from"] != "human" or not SOUND.fullmatch(name):
            return turn
        if " " in name and not (self.sound_root / name).is_file():
            return turn  # a sentence about a sound file
        spoken.append(name)
        return {**turn, "value": turn["value"].replace(name, self._text(name))}

    def _text(self, name: str) -> str:
        if name not in self._texts:
            path = self.sound_root / name
            if not path.resolve().is_relative_to(self.sound_root.resolve()):
                raise DataError(f"{name!r} leads out of sound_root={str(self.sound_root)!r}")
            if path.suffix.lower() not in READ:
                raise DataError(f"{path}: sounds are read from {' and '.join(READ)} files; convert it to one")
            text = _recogniser(self.recogniser)(read_sound(path))
            if not text:
                raise DataError(f"{path}: nothing was understood")
            if len(self._texts) >= KNOWN_TEXTS:
                self._texts.clear()
            self._texts[name] = text
        return self._texts[name]


def read_sound(path: Path) -> np.ndarray:
    """One channel of float32 samples in [-1, 1] at 16 kHz; DataError for a file that is none.

    ``.wav`` is read here (8, 16 or 32 bits), ``.flac`` by soundfile (``mllm[speech]``).
    """
    if path.suffix.lower() == ".flac":
        library = require("soundfile", "speech")
        try:
            samples, rate = library.read(path, dtype="float32", always_2d=True)
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path}: not a FLAC file that can be read ({error})") from error
        samples = samples.mean(axis=1)
    else:
        samples, rate = _read_wave(path)
    if not len(samples):
        raise DataError(f"{path}: the sound is empty")
    if rate != RATE:
        # In the frequencies: what 16 kHz cannot hold is cut off instead of folded back into the voice.
        count = max(round(len(samples) * RATE / rate), 1)
        samples = np.fft.irfft(np.fft.rfft(samples), count) * (count / len(samples))
    return samples.astype(np.float32)


def _read_wave(path: Path) -> tuple[np.ndarray, int]:
    try:
        with wave.open(str(path)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            content = file.readframes(file.getnframes())
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f"{path}: no such sound file") from error
    except (wave.Error, EOFError) as error:
        raise DataError(f"{path}: not a WAV file of PCM samples ({error})") from error
    kinds = {1: ("u1", 128.0, 128.0), 2: ("<i2", 0.0, 32768.0), 4: ("<i4", 0.0, 2147483648.0)}
    if width not in kinds:
        raise DataError(f"{path}: samples of {8 * width} bits; expected 8, 16 or 32")
    kind, zero, most = kinds[width]
    content = content[: len(content) // (width * channels) * width * channels]  # a file may end within a sample
    samples = (np.frombuffer(content, kind).astype(np.float64) - zero) / most
    return samples.reshape(-1, channels).mean(axis=1), rate


@lru_cache(maxsize=2)
def _recogniser(name: str) -> Callable[[np.ndarray], str]:
    if name == "pocketsphinx":
        decoder = require("pocketsphinx", "speech").Decoder(samprate=RATE, loglevel="FATAL")

        def recognise(samples: np.ndarray) -> str:
            decoder.start_utt()
            decoder.process_raw((samples * 32767).astype("<i2").tobytes(), full_utt=True)
            decoder.end_utt()
            found = decoder.hyp()
            return found.hypstr.strip() if found is not None else ""

        return recognise
    folder = Path(resolve_path(name))
    if not (folder / "config.json").is_file():
        raise DataError(
            f"SpokenQuestions: recogniser={name!r} is neither 'pocketsphinx' nor the folder of a speech model"
        )
    from transformers import pipeline

    recognise_speech = pipeline("automatic-speech-recognition", model=str(folder))
    return lambda samples: recognise_speech({"raw": samples, "sampling_rate": RATE})["text"].strip()
