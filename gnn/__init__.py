"""The network: model, training, evaluation, scoring and explanations."""
