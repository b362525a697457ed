"""The one place that decides what is accepted in a column, whichever door it came through."""
