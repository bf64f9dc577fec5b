"""Tiny twins of the LLaVA families."""

import tiny
from models.twin import Twin

TWINS = {
    "LLaVA": Twin(tiny.MODEL_ARGS),
    "LLaVAv1": Twin({**tiny.MODEL_ARGS, "type": "LLaVAv1"}, plain=False),
}
