"""What it is timed against: the same work in PyTorch, LibMultiLabel, Omikuji and plain JAX."""
