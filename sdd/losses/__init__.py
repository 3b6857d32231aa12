"""Losses: divergences to a teacher, policy-gradient parts, and blocks of tokens for both."""
