"""Pages for investigators."""
