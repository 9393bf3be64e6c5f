"""Steps over the labels that a linear model proposes for each document, in place of all labels."""

from typing import Literal

from jax.sharding import Mesh

from lsfa_jax.config import Config
from lsfa_jax.data import negative_sampling
from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.data.candidates import with_labels
from lsfa_jax.training import shortlist
from lsfa_jax.util import sharding
from lsfa_jax.util.random_streams import Stream

# With 500 labels a step over candidates takes 0.8 times as long as one over all, with 1,000 0.6, with 2,000 0.35 times,
# with 30,000 0.04 times. Beyond, a shortlist (`representation.shortlist`) updates fewer rows than Adam on all labels.
_MANY_LABELS = 1_000


def resolved(config: Config, num_labels: int) -> Literal["linear", "all"]:
    """Returns the setting `candidates` with "auto" resolved for L labels; the paper's sizes compare with all."""
    if num_labels <= config.representation.num_candidates:
        return "all"
    if config.candidates == "auto":
        return "linear" if config.follows_corpus and _MANY_LABELS <= num_labels <= shortlist.MOST_LABELS else "all"
    return config.candidates


def in_use(config: Config, train: Batches) -> bool:
    """Whether steps are over candidates: where the setting is "linear"; "auto" has been resolved before.

    Raises:
        ValueError: they are, and the training documents have none.
    """
    if config.candidates != "linear":
        return False
    if not train.has_candidates:
        raise ValueError('candidates = "linear": the training documents have no candidates; give them to `Batches`')
    return True


def placed(mesh: Mesh, batch: Batch, config: Config, num_labels: int, use: Stream, epoch: int, step: int) -> Batch:
    """Puts a training batch with candidates on the devices: its labels among them, and with the sample of a step."""
    number = min(config.representation.num_sampled, num_labels)
    sample = negative_sampling.sample_labels(num_labels, number, use, config.seed, epoch, step)
    return sharding.shard_batch(mesh, with_labels(batch))._replace(sample=sharding.replicate(mesh, sample))
