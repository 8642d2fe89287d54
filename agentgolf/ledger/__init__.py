"""The append-only record of everything, in SQLite and content-addressed files."""
