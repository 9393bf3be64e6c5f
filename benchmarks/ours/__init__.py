"""What is timed of lsfa_jax."""
