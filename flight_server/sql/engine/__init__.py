"""The process that runs SQL. It knows DuckDB and Arrow and nothing of the rest, which is why it imports none of it."""
