"""Runs on a cluster: what a job asks for, its script, arrays of runs, and the trials of a sweep."""
