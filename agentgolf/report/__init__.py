"""Shows what the ledger holds: summaries, tables, trees."""
