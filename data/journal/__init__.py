"""The ordered log of everything that can change a score or a decision."""
