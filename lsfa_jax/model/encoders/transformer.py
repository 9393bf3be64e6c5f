"""Eq. 1 by a pretrained transformer of the BERT family: BERT, MiniLM, DistilBERT, RoBERTa.

Shapes: B documents, T tokens (padded), H hidden units.
"""

from typing import Literal, NamedTuple


class Architecture(NamedTuple):
    """The sizes of a transformer, as the config.json beside its weights has them."""

    vocabulary_size: int
    """Rows of the embedding table."""
    hidden_size: int
    """H."""
    num_layers: int
    num_heads: int
    intermediate_size: int
    """Hidden units of the feed-forward network."""
    num_positions: int
    """Tokens of a window at most, the first and the last token included."""
    activation: Literal["gelu", "gelu_tanh", "relu"]
    norm_epsilon: float
    first_id: int
    """Id of the token before each window, [CLS] or <s>."""
    last_id: int
    """Id of the token behind each window, [SEP] or </s>."""
