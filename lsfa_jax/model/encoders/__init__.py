"""Eq. 1: encoders behind one interface, token ids to states."""
