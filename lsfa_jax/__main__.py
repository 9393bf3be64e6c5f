"""`python -m lsfa_jax VERB ...` is the same as `lsfa VERB ...`."""

from lsfa_jax.cli import main

if __name__ == "__main__":
    main()
