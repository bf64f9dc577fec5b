"""Train, evaluate and predict with multimodal language models, grounding (boxes and points) included."""

__version__ = "0.1.0"
