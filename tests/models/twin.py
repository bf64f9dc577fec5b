"""What the contract test of model families needs to know of a family's tiny twin."""

from dataclasses import dataclass, field
from typing import Any

import tiny


@dataclass
class Twin:
    """``model_args`` and ``conversation`` build the twin; the rest says where families rightly differ.

    ``plain`` is whether transformers reads the saved folder by itself, ``never_used`` a regular expression for
    parameters that no output depends on, ``lora`` the config part ``tune.lora`` that suits the family, ``mark`` what
    the trained text ends with.
    """

    model_args: dict[str, Any]
    conversation: dict[str, Any] = field(default_factory=lambda: dict(tiny.CONVERSATION))
    plain: bool = True
    never_used: str = "(?!)"
    lora: dict[str, Any] = field(default_factory=lambda: {"r": 4, "alpha": 8, "modules_to_save": ["projector"]})
    mark: str = "</s>"
