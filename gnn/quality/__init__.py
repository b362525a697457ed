"""Model card, audit for leaks, week-by-week evaluation, fidelity of reasons."""
