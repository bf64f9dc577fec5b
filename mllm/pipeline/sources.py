"""What a training run will draw from each of its sources, told before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from mllm.dataset.mixture import Source, sources_of
from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.errors import DataError

PROBED_ROWS = 16


@dataclass
class SourceUse:
    """One source in a run of ``epochs`` epochs; tokens and images are means over a few rows spread over it."""

    source: Source
    epochs: float
    tokens: float
    trained: float
    images: float

    @property
    def effective_epochs(self) -> float:
        """How often the run sees each row of the source, on average."""
        return self.source.samples * self.epochs / self.source.rows

    @property
    def samples(self) -> float:
        """Samples from the source in the whole run."""
        return self.source.samples * self.epochs


def source_uses(samples: SingleImageConvDataset, epochs: float) -> list[SourceUse]:
    """The use of every data set at the bottom of the training mixture; rows that cannot be read are passed over."""
    uses = []
    for source in sources_of(samples.dataset):
        alone = SingleImageConvDataset(source.dataset, samples.processor, seed=samples.seed, name=source.name)
        step = max(source.rows // PROBED_ROWS, 1)
        found = [probe for probe in (_probe(alone, i) for i in range(0, source.rows, step)[:PROBED_ROWS]) if probe]
        tokens, trained, images = (mean(values) for values in zip(*found, strict=True)) if found else (0.0, 0.0, 0.0)
        uses.append(SourceUse(source, epochs, tokens, trained, images))
    return uses


def _probe(alone: SingleImageConvDataset, index: int) -> tuple[int, int, int] | None:
    try:
        sample = alone.sample(index)
    except DataError:
        return None
    trained = sum(label != -100 for label in sample.features["labels"])
    return len(sample.features["input_ids"]), trained, len(sample.record.frames)


def source_table(uses: list[SourceUse]) -> str:
    """A line a source: rows, samples of the run, effective epochs, tokens (trained ones) and images of the run."""
    lines = [f"  {'source':30}{'rows':>10}{'samples':>11}{'epochs':>8}{'tokens':>10}{'trained':>10}{'images':>10}"]
    for use in uses:
        totals = (_short(use.samples * each) for each in (use.tokens, use.trained, use.images))
        rows, samples = f"{use.source.rows:>10,}", f"{round(use.samples):>11,}"
        counts = "".join(f"{total:>10}" for total in totals)
        lines.append(f"  {use.source.name[:30]:30}{rows}{samples}{use.effective_epochs:>8.2f}{counts}")
    return "\n".join(lines)


def _short(value: float) -> str:
    """``1.2 M``, three digits at most."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"~{value / size:.3g} {unit}"
    return f"~{value:.0f}"
