"""Times and memory of lsfa_jax and of its peers, measured in one run: `python -m benchmarks`."""
