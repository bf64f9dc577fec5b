"""Tiny twin of LLaVA-NeXT: images keep their own size and are cut into tiles of 28 pixels."""

import tiny
from models.twin import Twin

MODEL_ARGS = {
    **tiny.MODEL_ARGS,
    "type": "LLaVANext",
    "config": {**tiny.MODEL_ARGS["config"], "image_grid_pinpoints": [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]},
}
CONVERSATION = {**tiny.CONVERSATION, "transforms": []}

TWINS = {"LLaVANext": Twin(MODEL_ARGS, CONVERSATION)}
