"""Runs one candidate process under limits, and measures it from outside."""
