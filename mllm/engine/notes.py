"""What happened to samples on the way: counted by kind, the first places named, a budget on the faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mllm.errors import DataError
from mllm.utils.logging import get_logger

logger = get_logger(__name__)


class Notes:
    """Counts ``(kind, place)`` notes; the first of a kind is logged; "replaced" ones have a ``budget``."""

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, notes: Iterable[tuple[str, str]]) -> None:
        """Count them; DataError once more samples were replaced than the budget allows."""
        for kind, place in notes:
            self.counts[kind] += 1
            if kind not in self.first:
                self.first[kind] = place
                logger.warning("%s: %s (further ones are counted)", kind, place)
        replaced = self.counts["replaced"]
        if self.budget is not None and replaced > self.budget:
            raise DataError(
                f"{replaced} samples could not be read, data_args.error_budget allows {self.budget}; "
                f"the first: {self.first['replaced']}"
            )

    def summary(self) -> dict[str, dict[str, int | str]]:
        """Count and first place of each kind."""
        return {kind: {"count": count, "first": self.first[kind]} for kind, count in sorted(self.counts.items())}
