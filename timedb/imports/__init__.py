"""Data of other stores as runs and corrections: what they hold, read in the order in which it was written."""
