"""Experiments: plans of runs with several seeds, the runs, and the pages that report them."""
