"""Evaluators: every module here is imported to fill ``EVALUATORS``."""
