"""One scoring replica, without HTTP: graph, model, micro-batches, answers."""
