"""Policies that people write: the file, what it compiles to, and which of them decides a payment."""
