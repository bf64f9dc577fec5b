"""Data sets: every module here is imported to fill ``DATASETS``."""
