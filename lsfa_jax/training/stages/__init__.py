"""The three stages of LSFA."""
