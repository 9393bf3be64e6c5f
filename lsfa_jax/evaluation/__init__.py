"""Metrics, the scorer that computes them in one pass, and the tables that show them."""
