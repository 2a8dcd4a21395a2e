"""Demonstrations: files, statistics, and what the warm-up draws from them."""
