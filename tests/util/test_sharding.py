import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax.model import prototypes, pvae
from lsfa_jax.model.encoders import bilstm
from lsfa_jax.util import sharding
from lsfa_jax.util.console import UserError
from tests.reference.agreement import assert_equal
from tests.reference.inputs import normal

MESHES = {count: sharding.make_mesh(jax.local_devices()[:count]) for count in (1, 4)}


def test_the_mesh_has_all_local_devices():
    mesh = sharding.make_mesh()
    assert mesh.axis_names == ("data", "label")
    assert list(mesh.devices.ravel()) == jax.local_devices()
    assert mesh.size == 4
    assert MESHES[1].size == 1


@pytest.mark.parametrize("labels", [1, 2, 4])
def test_labels_are_split_over_so_many_devices(labels):
    assert dict(sharding.make_mesh(labels=labels).shape) == {"data": 4 // labels, "label": labels}


@pytest.mark.parametrize("labels", [3, 8])
def test_a_mesh_that_does_not_divide_the_devices_is_an_error(labels):
    with pytest.raises(UserError, match=f"--devices.labels {labels}: expected a divisor of the number of devices, 4"):
        sharding.make_mesh(labels=labels)


def test_batches_are_split_over_the_devices_and_replicated_trees_copied():
    tree = {"a": np.arange(8), "b": normal(4, 3)}
    sharded, replicated = sharding.shard_batch(MESHES[4], tree), sharding.replicate(MESHES[4], tree)
    for name, x in tree.items():
        share = len(x) // 4
        shards = sorted(sharded[name].addressable_shards, key=lambda shard: shard.index[0].start or 0)
        assert len({shard.device for shard in shards}) == 4
        for i, shard in enumerate(shards):
            np.testing.assert_array_equal(shard.data, x[i * share : (i + 1) * share])
        for shard in replicated[name].addressable_shards:
            np.testing.assert_array_equal(shard.data, x)
    assert_equal(sharding.to_host(sharded), tree)
    assert all(isinstance(x, np.ndarray) for x in sharding.to_host(sharded).values())


@pytest.mark.parametrize("labels", [1, 2])
def test_one_process_has_all_rows_of_a_batch(labels):
    assert sharding.rows_of_process(sharding.make_mesh(labels=labels), 8).tolist() == [True] * 8


def test_abstract_has_shapes_dtypes_and_sharding():
    abstract = sharding.abstract(MESHES[4], {"a": jnp.zeros((2, 3), jnp.int32)}, 2)["a"]
    assert (abstract.shape, abstract.dtype) == ((2, 3), jnp.int32)
    assert abstract.sharding.is_fully_replicated
    assert abstract.sharding.device_set == set(jax.local_devices())


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, 5, 1])
def test_the_pmapped_encoder_equals_the_encoder(count):
    params = {
        direction: {name: normal(*shape, seed=seed) for name, shape in SHAPES.items()}
        for seed, direction in enumerate(("forward", "backward"))
    }
    x, lengths = normal(count, 6, 3), (np.arange(count) * 3 % 7).astype(np.int32)
    mapped = sharding.pmapped(lambda params, x, lengths: bilstm.bilstm(params, x, lengths))(params, x, lengths)
    assert mapped.shape == (count, 6, 4)
    np.testing.assert_allclose(mapped, jax.jit(bilstm.bilstm)(params, x, lengths), rtol=1e-5, atol=1e-6)


SHAPES = {"w_input": (3, 8), "w_hidden": (2, 8), "bias": (8,), "h0": (2,), "c0": (2,)}


@pytest.mark.slow
@pytest.mark.parametrize("documents", [8, 6, 3])
def test_pmapped_prototypes_equal_the_prototypes(documents):
    num_labels = 5
    random = np.random.default_rng(documents)
    features, label_ids = normal(documents, 4, 3), random.integers(num_labels, size=(documents, 4))
    mask = random.random((documents, 4)) < 0.7

    def sums(_, features, label_ids, mask):
        return jax.vmap(lambda *rows: prototypes.feature_sums(*rows, num_labels))(features, label_ids, mask)

    parts = sharding.pmapped(sums)(None, features, label_ids, mask)
    expected = prototypes.feature_sums(features.reshape(-1, 3), label_ids.ravel(), mask.ravel(), num_labels)
    total = prototypes.FeatureSums(*(part.sum(axis=0) for part in parts))
    np.testing.assert_array_equal(total.counts, expected.counts)
    np.testing.assert_allclose(prototypes.prototypes(total), prototypes.prototypes(expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(prototypes.variances(total), prototypes.variances(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [4, 7])
def test_the_pmapped_decoder_equals_the_decoder(rows):
    model = pvae.Pvae(feature_size=3, hidden_size=4, latent_size=2, nonnegative=False)
    z, centres = normal(rows, 2), normal(rows, 3)
    variables = model.init(jax.random.key(0), centres, centres, z)

    def decode(variables, z, centres):
        return model.apply(variables, z, centres, method=pvae.Pvae.decode)

    mapped = sharding.pmapped(decode)(variables, z, centres)
    assert np.any(mapped)
    np.testing.assert_allclose(mapped, decode(variables, z, centres), rtol=1e-5, atol=1e-6)


def test_pmapped_gives_each_device_its_share_of_the_rows():
    mapped = sharding.pmapped(lambda constant, x, y: {"sum": x + constant * y, "share": jnp.full(len(x), len(x))})
    out = mapped(10, np.arange(9), np.arange(9))
    np.testing.assert_array_equal(out["sum"], 11 * np.arange(9))
    np.testing.assert_array_equal(out["share"], np.full(9, 3))
