"""The page at ``/ui``: its files, and how they are found and packed. What it asks of the API a browser asks."""
