"""The network of a trained model as a function of token ids and lengths, which programs of other formats compute.

The linear model is left out: it counts words and searches a tree, which is no function of arrays. The probabilities are
those of the network alone, also where the model ranks labels by the fused score.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export

from lsfa_jax.data.batches import length_buckets
from lsfa_jax.model.encoders.transformer import Transformer
from lsfa_jax.serving.predictor import lsfa_module
from lsfa_jax.training.model_folder import TrainedModel
from lsfa_jax.types import Array, HostArray


class Program(NamedTuple):
    """A program for token ids int32[b, t] and lengths int32[b], with any number of texts b."""

    name: str
    lengths: list[int]
    """The numbers of tokens that texts are padded to, increasing."""
    any_length: bool
    """Whether t is any even number up to the last of `lengths`; else it is the last."""

    @property
    def shapes(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """The shapes of token ids and lengths, with symbols."""
        longest = self.lengths[-1]
        width, constraints = ("2*t", [f"2*t <= {longest}"]) if self.any_length else (str(longest), [])
        shape = export.symbolic_shape(f"b, {width}", constraints=constraints)
        return jax.ShapeDtypeStruct(shape, jnp.int32), jax.ShapeDtypeStruct(shape[:1], jnp.int32)


class Network:
    """Eq. 1-5 with the parameters of a trained model, in float32: token ids to the probabilities of all L labels."""

    def __init__(self, model: TrainedModel) -> None:
        """Takes the network of a model, and neither its linear model nor the weights of its fused score."""
        precise = replace(model, config=model.config.model_copy(update={"precision": "float32"}))
        self._lsfa = lsfa_module(precise)
        self.weights: dict[str, Any] = flatten_dict(model.params, sep="/")
        """The parameters, float32 arrays, by their path in the tree."""
        self._num_ids = model.encoder_shape.vocabulary_size
        longest = model.vocabulary().max_tokens
        # Even numbers: a convolution computes pairs of neighbouring tokens.
        buckets = length_buckets(model.config.data.length_buckets, longest)
        self._lengths = sorted({length + length % 2 for length in buckets})

    def __call__(self, token_ids: Array, lengths: Array) -> Array:
        """Computes float32[B, L] of token ids int32[B, T] and lengths int32[B]."""
        return self.with_weights(self.weights, token_ids, lengths)

    def with_weights(self, weights: Mapping[str, Any], token_ids: Array, lengths: Array) -> Array:
        """Computes the same with other values of `weights`."""
        lsfa = self._lsfa.bind({"params": unflatten_dict(jax.tree.map(jnp.asarray, dict(weights)), sep="/")})
        return jax.nn.sigmoid(lsfa.scores(lsfa.states(token_ids, lengths), lengths))

    def programs(self, any_length: bool) -> list[Program]:
        """Returns one program for all texts, or two where an encoder reads long texts in several windows.

        Args:
            any_length: whether programs may take any length; else there is one length for each program.
        """
        encoder, lengths = self._lsfa.encoder, self._lengths
        most = encoder.tokens_at_once if isinstance(encoder, Transformer) else lengths[-1]
        short = [length for length in lengths if length <= most]
        programs = [Program("network", short if any_length else short[-1:], any_length)] if short else []
        # Of several windows, the length determines the number.
        return programs if short == lengths else [*programs, Program("network-long", lengths[-1:], False)]

    def largest_error(self, program: Program, computed: Callable[[HostArray, HostArray], Any]) -> float:
        """Returns how far the probabilities of an implementation of a program are from these, on random texts."""
        random, width = np.random.default_rng(0), program.lengths[-1]
        token_ids = random.integers(0, self._num_ids, (3, width), np.int32)
        lengths = np.array([width, random.integers(1, width), 0], np.int32)
        return float(np.max(np.abs(np.asarray(computed(token_ids, lengths)) - jax.jit(self)(token_ids, lengths))))
