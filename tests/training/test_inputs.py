from dataclasses import replace

import jax
import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.training.inputs import Inputs
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.util import sharding
from tests import training_corpus


def test_excluded_labels_go_along_with_words_and_with_stored_states(tiny, tmp_path):
    rows = [[2, 5] if row % 3 == 0 else [7] if row % 3 == 1 else [] for row in range(len(tiny.test))]
    corpus = replace(tiny, test=replace(tiny.test, excluded=Ragged.from_rows(rows)))
    config, mesh = training_corpus.config(), sharding.make_mesh(jax.local_devices()[:1])
    inputs = Inputs(config, corpus, training_corpus.make_model(config), mesh, RunFolder(tmp_path))
    # As if an earlier command had stored states, so that no parameters are needed.
    with inputs.token_states["test"].filling():
        pass
    for kind, batches in (("words", inputs.test), ("states", inputs.held_out({}, "test"))):
        assert batches.split.kind == kind
        for batch in map(batches.gather, batches.in_order()):
            for place in np.flatnonzero(batch.document_mask):
                excluded = batch.excluded[place]
                assert excluded[excluded >= 0].tolist() == rows[batch.rows[place]]
    assert inputs.validation.gather(inputs.validation.in_order()[0]).excluded is None
