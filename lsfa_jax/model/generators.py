"""What generates features for tail labels: the PVAE (Eq. 18) or one of its rivals, the setting `transfer.method`."""

from dataclasses import dataclass
from typing import Any

from lsfa_jax.config import TransferMethod
from lsfa_jax.model import augmentation, gaussian, resampling
from lsfa_jax.model.augmentation import Sampler
from lsfa_jax.model.pvae import Pvae
from lsfa_jax.types import Array, PyTree


@dataclass(frozen=True)
class Generator:
    """Returns the sampler of features, given what stage 2 has learned."""

    method: TransferMethod
    pvae: Pvae

    def __call__(self, learned: PyTree) -> Sampler:
        """Returns the sampler.

        Args:
            learned: by method: variables of the PVAE, its parameters as `params` and the collections that are not
                trained; {"gaussian": Covariances}; {"resample": RealFeatures}.

        Raises:
            ValueError: no features are generated.
        """
        if self.method == "gaussian":
            return gaussian.sampler(learned["gaussian"], self.pvae.nonnegative)
        if self.method == "resample":
            return resampling.sampler(learned["resample"])
        if self.method == "none":
            raise ValueError('transfer.method = "none": no features are generated')

        def decode(z: Array, prototype: Array) -> Any:
            return self.pvae.apply(learned, z, prototype, method=Pvae.decode)

        return augmentation.from_decoder(decode, self.pvae.latent_size)
