"""Comparisons: prompts x models x repeats, asked in a fair order, and what came of it.

The package is called ``comparison`` because ``toolkit.compare`` is the function.
"""
