"""Races of Arclight against its peers; `python -m benchmarks` runs them."""
