"""Training: targets, pre-training, layers, head."""
