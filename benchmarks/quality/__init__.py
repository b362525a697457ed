"""What detection is worth beside its rivals, on public data and on the seeded world.

One module for each data set; `python -m benchmarks.quality` runs them. Every run of one seed is kept under var/quality.
"""
