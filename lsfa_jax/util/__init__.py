"""Small modules, each named by the one thing that it does."""
