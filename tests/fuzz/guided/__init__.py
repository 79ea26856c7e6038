"""Fuzzing that watches which lines of ours an input reaches, and goes on from what reaches more."""
