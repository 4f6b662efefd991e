"""TimeDB."""
