"""The peers give our numbers from our weights: what is timed is the same work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import documents as shapes
from benchmarks.ours import layers as ours_layers
from benchmarks.ours import model as ours_model
from benchmarks.ours import training as ours_training
from benchmarks.peers import plain_attention
from lsfa_jax.model.classifier import binary_cross_entropy
from lsfa_jax.model.contrastive import prototypical_contrastive
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.training.stages import transfer

torch = pytest.importorskip("torch", reason="the extra `peers` is not installed")
torch_model = pytest.importorskip("benchmarks.peers.torch_model")
torch_stages = pytest.importorskip("benchmarks.peers.torch_stages")


@pytest.fixture(scope="module")
def ours():
    made = ours_model.make("tiny", 0)
    # Biases of zero would hide one that is not copied.
    bias = jnp.linspace(-0.5, 0.5, made.shape.feature)
    return made._replace(params=made.params | {"head_bias": bias})


def plain(ours, packed):
    model = torch_model.Plain(ours.shape, dropout=False, packed=packed)
    torch_model.copy_weights(ours_training.weights(ours.params), model)
    return model


def rows_of(ours, packed):
    """Documents of all lengths; without packing, the backward LSTM reads the padding, so there must be none."""
    if packed:
        return np.arange(ours.shape.batch), None
    long = np.flatnonzero(ours.documents.lengths >= 9)[: ours.shape.batch]
    return long, 9


def both_batches(ours, packed):
    rows, num_words = rows_of(ours, packed)
    theirs = torch_model.TorchBatch(ours.documents, rows, ours.shape.num_labels, num_words)
    mine = ours.batch(rows, ours.shape.max_words)
    mine = mine._replace(
        words=mine.words[:, : theirs.words.shape[1]], lengths=np.minimum(mine.lengths, theirs.words.shape[1])
    )
    np.testing.assert_array_equal(mine.words, theirs.words)
    np.testing.assert_array_equal(mine.lengths, theirs.lengths)
    return mine, theirs


@pytest.mark.parametrize("packed", [True, False])
def test_logits_loss_and_gradients(ours, packed):
    mine, theirs = both_batches(ours, packed)
    model = plain(ours, packed)
    prototypes = np.random.default_rng(1).uniform(0, 1, (ours.shape.num_labels, ours.shape.feature)).astype(np.float32)

    def loss(params):
        variables = {"params": params}
        states = ours.model.apply(variables, mine.words, mine.lengths, method=Lsfa.states)
        logits = ours.model.apply(variables, states, mine.lengths, method=Lsfa.scores)
        features = ours.model.apply(variables, states, mine.lengths, mine.label_ids, method=Lsfa.positive_features)
        entropy = binary_cross_entropy(logits, mine.label_ids, mine.label_mask, mine.document_mask)
        contrast = prototypical_contrastive(
            features.reshape(-1, ours.shape.feature), mine.label_ids.reshape(-1), mine.label_mask.reshape(-1),
            prototypes, np.ones(ours.shape.num_labels, bool), 0.07,
        )  # fmt: skip
        return (entropy + 0.1 * contrast) / logits.size, logits

    (value, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(ours.params)
    expected = torch_model.loss(model, theirs, torch.from_numpy(prototypes))
    expected.backward()
    np.testing.assert_allclose(logits, model(theirs.words, theirs.lengths).detach(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(value, float(expected.detach()), rtol=1e-5)
    named = ours_training.weights(gradients)
    for name, peer in (("label_queries", model.queries), ("weights", model.weights), ("head_bias", model.head.bias),
                       ("embedding", model.embedding.weight)):  # fmt: skip
        np.testing.assert_allclose(named[name], peer.grad, rtol=2e-3, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(named["head_kernel"].T, model.head.weight.grad, rtol=2e-3, atol=1e-7)
    for side, suffix in (("forward", ""), ("backward", "_reverse")):
        for name, peer in (("w_input", "weight_ih_l0"), ("w_hidden", "weight_hh_l0"), ("bias", "bias_ih_l0")):
            gradient = getattr(model.lstm, peer + suffix).grad
            np.testing.assert_allclose(named[f"lstm_{side}_{name}"].T, gradient, rtol=2e-3, atol=1e-7, err_msg=name)


def test_features_of_positive_pairs(ours):
    mine, theirs = both_batches(ours, packed=True)
    model = plain(ours, packed=True)
    variables = {"params": ours.params}
    states = ours.model.apply(variables, mine.words, mine.lengths, method=Lsfa.states)
    features = ours.model.apply(variables, states, mine.lengths, mine.label_ids, method=Lsfa.positive_features)
    own = model.states(theirs.words, theirs.lengths)
    found = model.pair_features(own, theirs.lengths, theirs.document, theirs.label).detach()
    np.testing.assert_allclose(np.asarray(features)[mine.label_mask], found, rtol=1e-4, atol=1e-6)


def test_autoencoder(ours):
    mine = transfer.make_pvae(ours.config, ours.shape.feature)
    params, _ = transfer.init_variables(mine, jax.random.key(0))
    peer = torch_stages.PlainPvae(ours.shape.feature)
    layers = {"encoder_hidden": peer.hidden, "encoder_mu": peer.mu, "encoder_log_variance": peer.log_variance,
              "decoder_hidden": peer.decoder_hidden, "decoder_out": peer.out}  # fmt: skip
    for name, layer in layers.items():
        layer.weight.data = torch.from_numpy(np.array(params[name]["kernel"]).T)
        layer.bias.data = torch.from_numpy(np.array(params[name]["bias"]))
    v, p = np.random.default_rng(0).random((2, 5, ours.shape.feature), np.float32)
    noise = np.random.default_rng(1).standard_normal((5, mine.latent_size)).astype(np.float32)
    expected = mine.apply({"params": params}, v, p, noise)
    _, mu, log_variance = peer(torch.from_numpy(v), torch.from_numpy(p))
    drawn = peer.decode(mu + torch.from_numpy(noise) * torch.exp(0.5 * log_variance), torch.from_numpy(p))
    for one, other in zip(expected, (drawn, mu, log_variance), strict=True):
        np.testing.assert_allclose(one, other.detach(), rtol=1e-4, atol=1e-5)


def test_plain_label_attention(ours):
    own, rest, states, lengths, label_ids, label_mask = ours_layers.attention_arguments(ours)
    lengths = np.maximum(lengths - np.arange(len(lengths)), 1).astype(np.int32)
    targets = plain_attention.dense_targets(label_ids, label_mask, ours.shape.num_labels)

    def mine(own, states):
        labels = label_ids, label_mask, np.ones(len(lengths), bool)
        return ours.model.apply({"params": rest | own}, states, lengths, *labels, method=Lsfa.loss)

    value, gradients = jax.jit(jax.value_and_grad(mine, argnums=(0, 1)))(own, states)
    expected = jax.jit(jax.value_and_grad(plain_attention.loss, argnums=(0, 1)))(own, states, lengths, targets)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_both_sides_step_on_the_same_documents():
    made = shapes.documents(shapes.SHAPES["tiny"], 0)
    rows = shapes.step_rows(made, shapes.SHAPES["tiny"])
    theirs = torch_model.TorchBatch(made, rows, 30, 12)
    mine = ours_model.make("tiny", 0).batch(rows, 12)
    np.testing.assert_array_equal(mine.words, theirs.words)
    np.testing.assert_array_equal(mine.lengths, theirs.lengths)
    np.testing.assert_array_equal(plain_attention.dense_targets(mine.label_ids, mine.label_mask, 30), theirs.targets)
