"""The seeded payment world: honest habits, planted fraud rings, labels that arrive late."""
