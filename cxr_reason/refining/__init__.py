"""Refining: chains of reasoning are held against their report, mended where that is safe, and else rejected.

`checks.CHECKS` is the table of checks, `study.refine` applies it to a study's records, and ``talk.toml`` holds what a
chain must not talk of.
"""
