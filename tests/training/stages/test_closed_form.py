import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax.training import loop
from lsfa_jax.training.stages.closed_form import ClosedForm
from tests import training_corpus


@pytest.mark.parametrize(("select", "best"), [("N@5", 2.0), ("P@1", 3.0)])
def test_the_value_that_is_best_by_the_selected_metric_is_kept(select, best):
    params = {"encoder": jnp.ones(2), "classifier": {"weights": jnp.arange(1.0, 4.0)}}
    scores = {1.0: {"N@5": 10.0, "P@1": 20.0}, 2.0: {"N@5": 30.0, "P@1": 10.0}, 3.0: {"N@5": 20.0, "P@1": 40.0}}

    def validate(adjusted):
        np.testing.assert_array_equal(adjusted["encoder"], params["encoder"])
        return scores[float(adjusted["classifier"]["weights"][0])]

    config = training_corpus.config(adjust={"select": select})
    stage = ClosedForm(config, params, lambda c, value: {"weights": value * c["weights"]}, tuple(scores), validate)
    state = loop.run(stage, stage.init(jax.random.key(0), params["classifier"]))
    np.testing.assert_array_equal(state.best["weights"], best * np.arange(1.0, 4.0))
