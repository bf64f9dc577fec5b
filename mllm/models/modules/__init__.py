"""Modules of our own, imported when a family builds one: transformers loads slowly."""
