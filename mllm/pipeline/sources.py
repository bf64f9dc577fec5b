"""What a training run will draw from each of its sources, told before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from mllm.dataset.browsing import named_sources
from mllm.dataset.mixture import Source, sources_of
from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.errors import DataError

PROBED_ROWS = 16


@dataclass
class SourceUse:
    """One source in a run of ``epochs`` epochs; tokens and images are means over a few rows spread over it."""

    name: str
    source: Source
    epochs: float
    tokens: float
    trained: float
    images: float

    @property
    def rows(self) -> int:
        """The rows of the source that the run draws from."""
        return self.source.rows if self.source.chosen is None else len(self.source.chosen)

    @property
    def effective_epochs(self) -> float:
        """How often the run sees each of these rows, on average."""
        return self.samples / self.rows

    @property
    def samples(self) -> float:
        """Samples from the source in the whole run."""
        return self.source.samples * self.epochs


def source_uses(samples: SingleImageConvDataset, epochs: float) -> list[SourceUse]:
    """The use of every data set at the bottom of the training mixture; rows that cannot be read are passed over."""
    uses = []
    for name, source in named_sources(list(sources_of(samples.dataset))).items():
        alone = SingleImageConvDataset(source.dataset, samples.processor, seed=samples.seed, name=name)
        rows = range(source.rows) if source.chosen is None else source.chosen
        probed = rows[:: max(len(rows) // PROBED_ROWS, 1)][:PROBED_ROWS]
        found = [probe for probe in (_probe(alone, int(row)) for row in probed) if probe]
        tokens, trained, images = (mean(values) for values in zip(*found, strict=True)) if found else (0.0, 0.0, 0.0)
        uses.append(SourceUse(name, source, epochs, tokens, trained, images))
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
        rows, samples = f"{use.rows:>10,}", f"{round(use.samples):>11,}"
        counts = "".join(f"{total:>10}" for total in totals)
        lines.append(f"  {use.name[:30]:30}{rows}{samples}{use.effective_epochs:>8.2f}{counts}")
    return "\n".join(lines)


def _short(value: float) -> str:
    """``1.2 M``, three digits at most."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"~{value / size:.3g} {unit}"
    return f"~{value:.0f}"
