"""The replica over HTTP, and its placement by Ray Serve."""
