"""Turns a proposer's raw edits into a guarded patch and a commit in the run's own git store."""
