"""Measuring anybody's rollouts: read them in bounded memory, compare, write the page."""
