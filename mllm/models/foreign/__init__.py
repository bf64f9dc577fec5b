"""Checkpoints in the layouts of other projects: what they are, how they are read and written, and the proof of it."""
