"""Model families: every module here is imported to fill ``MODELS``."""
