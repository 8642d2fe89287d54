"""Proposes changes: each proposer sees a `Context` and gives a `Proposal`."""
