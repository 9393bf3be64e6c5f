"""Which parameters the first stage trains: all, or with a pretrained encoder that is partly frozen, the others alone.

Frozen parameters have no gradients, no Adam moments and no average, and are not in checkpoints.
"""

from lsfa_jax.config import Encoder
from lsfa_jax.types import ParamDict
from lsfa_jax.util.console import UserError


def split(params: ParamDict, settings: Encoder) -> tuple[ParamDict, ParamDict]:
    """Splits parameters into trained and frozen ones: two trees of nested dicts that `join` joins.

    With `encoder.train` = "frozen", all of the encoder is frozen; with a number N, all but its last N layers.

    Raises:
        UserError: the encoder has fewer layers.
    """
    if settings.train == "all":
        return params, {}
    encoder = params["encoder"]
    layers = sorted(name for name in encoder if name.startswith("layer_"))
    if settings.train != "frozen" and settings.train > len(layers):
        raise UserError(f"--encoder.train {settings.train}: expected all, frozen, or 1 to {len(layers)} last layers")
    trained = [] if settings.train == "frozen" else layers[-settings.train :]
    return (
        params | {"encoder": {name: part for name, part in encoder.items() if name in trained}},
        {"encoder": {name: part for name, part in encoder.items() if name not in trained}},
    )


def join(frozen: ParamDict | None, trained: ParamDict) -> ParamDict:
    """Returns the parameters that `split` split; without frozen ones, `trained`."""
    if not frozen:
        return trained
    out = dict(trained)
    for name, part in frozen.items():
        out[name] = join(part, trained[name]) if name in trained else part
    return out
