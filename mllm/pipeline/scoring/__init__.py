"""Scoring saved predictions again: run folders, files of others, two of them side by side. No torch, no config."""
