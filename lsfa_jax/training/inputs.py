"""What a run reads: batches of each split, of words or of states that were stored once their layers are trained."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import cast

import numpy as np
from jax.sharding import Mesh

from lsfa_jax.config import Config
from lsfa_jax.data.batches import Batches, length_buckets
from lsfa_jax.data.corpus import AnySplit, Corpus
from lsfa_jax.data.ranked import Ranked
from lsfa_jax.model.encoders import LayeredEncoder
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.model.prototypes import FeatureSums
from lsfa_jax.training import run_folder
from lsfa_jax.training.collection import LabelFeatures, collect_features, store_hidden
from lsfa_jax.training.linear_side import LinearSide
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.token_states import TokenStates
from lsfa_jax.types import ParamDict
from lsfa_jax.util import processes, sharding


class Inputs:
    """The batches of the training, validation and test documents.

    Documents are words at first. Where some layers of the encoder are frozen, `store_hidden_states` replaces them by
    what these layers compute; `encoded` replaces them by the states of an encoder whose training is over.
    """

    def __init__(self, config: Config, corpus: Corpus, model: Lsfa, mesh: Mesh, folder: RunFolder) -> None:
        """Prepares batches of words; computes nothing yet.

        Args:
            config: all settings.
            corpus: the documents.
            model: whose encoder computes the states that are stored.
            mesh: the devices.
            folder: where they are stored.
        """
        self.splits = {"train": corpus.train, "validation": corpus.validation, "test": corpus.test}
        self._config, self._num_labels, self._model, self._mesh = config, corpus.num_labels, model, mesh
        self._read: dict[str, AnySplit] = dict(self.splits)
        self._candidates: dict[str, np.ndarray] = {}
        longest = max(1, *(int(split.lengths.max(initial=1)) for split in self.splits.values()))
        self._buckets = length_buckets(config.data.length_buckets, longest)
        self.token_states = {
            name: TokenStates(folder.token_states(name), self.splits[name], model.encoder, exact=name != "train")
            for name in run_folder.ENCODED_SPLITS
        }
        self._hidden_states: dict[str, TokenStates] = {}
        if isinstance(config.encoder.train, int):
            rows = cast(LayeredEncoder, model.encoder).hidden_rows
            self._hidden_states = {
                name: TokenStates(folder.hidden_states(name), self.splits[name], model.encoder, hidden_rows=rows)
                for name in run_folder.HIDDEN_SPLITS
            }
        self._set_batches()

    def _set_batches(self) -> None:
        self.train = self._batches("train", self._read["train"], self._config.optimizer.batch_size)
        # No more rows than there are documents. Both splits have batches of one size, and so share programs.
        most = max(1, len(self.splits["validation"]), len(self.splits["test"]))
        size = min(self._config.report.batch_size, most)
        self.validation = self._batches("validation", self._read["validation"], size)
        self.test = self._batches("test", self._read["test"], size)

    def _batches(self, name: str, split: AnySplit, size: int, ranked: Ranked | None = None) -> Batches:
        """Returns the batches of a split, whose name determines the candidates of its documents."""
        return Batches(
            split,
            self._num_labels,
            size,
            self._buckets,
            self._mesh.shape["data"],
            ranked=ranked,
            candidates=self._candidates.get(name),
            rows_read=functools.partial(sharding.rows_of_process, self._mesh) if processes.count() > 1 else None,
            excluded=self.splits[name].excluded,
        )

    @property
    def have_candidates(self) -> bool:
        """Whether documents are compared with candidates only."""
        return bool(self._candidates)

    def set_candidates(self, linear: LinearSide, number: int) -> None:
        """Compares each document with the first `number` labels of the linear model's lists."""
        self._candidates = {name: linear.ranked(name).label_ids[:, :number] for name in self.splits}
        self._set_batches()

    def store_hidden_states(self, init: Callable[[], ParamDict] | None) -> None:
        """Replaces words by the hidden states of the encoder's frozen layers, where there is room to store them.

        Args:
            init: returns the initial parameters of the model; None: only states that are stored already are read.
        """
        params: ParamDict | None = None
        for name, states in self._hidden_states.items():
            if (init is None and not states.decided) or not self.keeps(states):
                continue
            if init and not states.decided:
                params = params or init()
                batches = self._batches(name, self.splits[name], self._config.report.batch_size)
                with states.filling() as sink:
                    store_hidden(self._model, params, batches, self._mesh, sink)
            self._read[name] = states.split()
        self._set_batches()

    @property
    def may_keep_states(self) -> bool:
        """Whether states are stored where the disk has room; of several processes, each would need all of them."""
        settings = self._config.adjust
        return processes.count() == 1 and not settings.encoder_dropout and settings.cache_states != "no"

    def keeps(self, states: TokenStates) -> bool:
        """Whether states are stored: where the settings allow it, and the disk has room."""
        return self.may_keep_states and states.keep_on_disk(self._config.adjust.cache_states)

    def collect(self, params: ParamDict, batches: Batches, *files: LabelFeatures | TokenStates) -> FeatureSums:
        """Sums the features of a split in one pass of the encoder, which also fills `files`."""
        with ExitStack() as stack:
            sinks = [stack.enter_context(file.filling()) for file in files]
            dtypes = [file.dtype for file in files if isinstance(file, TokenStates)]
            dtype = dtypes[0] if dtypes else None
            sums = collect_features(self._model, params, batches, self._mesh, *sinks, states_dtype=dtype)
        processes.wait()
        return sums

    def encoded(self, params: ParamDict, name: str, batches: Batches, ranked: Ranked | None = None) -> Batches:
        """Returns batches of a split's token states, computed and stored at the first call.

        Args:
            params: of the model, its encoder's training over.
            name: of the split.
            batches: what is returned if states are not stored.
            ranked: a linear model's lists, which go along with the documents.
        """
        states = self.token_states[name]
        if not self.keeps(states):
            return batches
        if not states.decided:
            self.collect(params, self._batches(name, self._read[name], self._config.optimizer.batch_size), states)
        return self._batches(name, states.split(), batches.batch_size, ranked)

    def held_out(self, params: ParamDict, name: str, linear: LinearSide | None = None) -> Batches:
        """Returns batches to score a split, which the encoder reads once after stage 1; with a linear model's lists."""
        ranked = None if linear is None else linear.ranked(name)
        batches = self._batches(name, self._read[name], self.validation.batch_size, ranked)
        return self.encoded(params, name, batches, ranked)

    def remove_states(self, token_states: bool) -> None:
        """Removes what was stored of frozen layers, and token states if `token_states` says so."""
        for states in (*(self.token_states.values() if token_states else ()), *self._hidden_states.values()):
            states.remove()
