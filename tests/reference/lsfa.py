"""Eq. 1-5 on the parameters of the classifier, in NumPy float64: what tests of the model and of stages compare with."""

from tests.reference import classifier, encoder


def token_states(params, words, lengths):
    """Eq. 1, float64[B, T, 2H] of word ids int[B, T]."""
    directions = {name: params["encoder"][name] for name in ("forward", "backward")}
    return encoder.bilstm(directions, params["encoder"]["embedding"][words], lengths)


def label_features(params, states, lengths):
    """Eq. 2-4, float64[B, L, D] of token states."""
    return encoder.label_features(states, lengths, params["labels"]["queries"], params["labels"].get("head"))


def logits(params, features):
    """Eq. 5, float64[B, L] of features."""
    return classifier.scores(features, params["classifier"]["weights"], params["classifier"].get("bias"))
