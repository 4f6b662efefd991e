"""Measurements. ``python -m benchmarks.run`` runs them."""
