"""PyTorch computes what ours computes from our weights: both are timed on the same work."""

import jax
import numpy as np
import pytest

from benchmarks.cases import SHAPES
from benchmarks.documents import documents, step_rows
from benchmarks.ours.model import make
from benchmarks.ours.training import weights
from benchmarks.peers.plain_attention import dense_targets
from lsfa_jax.model.classifier import binary_cross_entropy
from lsfa_jax.model.contrastive import prototypical_contrastive
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.training.stages import transfer

torch = pytest.importorskip("torch", reason="the extra `peers` is not installed")
torch_model = pytest.importorskip("benchmarks.peers.torch_model")
torch_stages = pytest.importorskip("benchmarks.peers.torch_stages")


def torch_copy(ours, packed):
    model = torch_model.Plain(ours.shape, dropout=False, packed=packed)
    torch_model.copy_weights(weights(ours.params), model)
    return model


def rows_of(ours, packed):
    """Documents of all lengths; without packing, the backward LSTM reads the padding, so there must be none."""
    if packed:
        return np.arange(ours.shape.batch_size), None
    long = np.flatnonzero(ours.documents.lengths >= 9)[: ours.shape.batch_size]
    return long, 9


def both_batches(ours, packed):
    """The same documents as our batch and as PyTorch's."""
    rows, num_words = rows_of(ours, packed)
    torch_batch = torch_model.TorchBatch(ours.documents, rows, ours.shape.num_labels, num_words)
    num_words = torch_batch.words.shape[1]
    batch = ours.batch(rows, ours.shape.max_words)
    batch = batch._replace(words=batch.words[:, :num_words], lengths=np.minimum(batch.lengths, num_words))
    np.testing.assert_array_equal(batch.words, torch_batch.words)
    np.testing.assert_array_equal(batch.lengths, torch_batch.lengths)
    return batch, torch_batch


@pytest.mark.parametrize("packed", [True, False])
def test_logits_loss_and_gradients_equal_ours(ours, packed):
    batch, torch_batch = both_batches(ours, packed)
    model = torch_copy(ours, packed)
    prototypes = np.random.default_rng(1).uniform(0, 1, (ours.shape.num_labels, ours.shape.feature_size))
    prototypes = prototypes.astype(np.float32)

    def loss(params):
        variables = {"params": params}
        states = ours.model.apply(variables, batch.words, batch.lengths, method=Lsfa.states)
        logits = ours.model.apply(variables, states, batch.lengths, method=Lsfa.scores)
        features = ours.model.apply(variables, states, batch.lengths, batch.label_ids, method=Lsfa.positive_features)
        entropy = binary_cross_entropy(logits, batch.label_ids, batch.label_mask, batch.document_mask)
        contrast = prototypical_contrastive(
            features.reshape(-1, ours.shape.feature_size), batch.label_ids.reshape(-1), batch.label_mask.reshape(-1),
            prototypes, np.ones(ours.shape.num_labels, bool), 0.07,
        )  # fmt: skip
        return (entropy + 0.1 * contrast) / logits.size, logits

    (value, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(ours.params)
    torch_value = torch_model.loss(model, torch_batch, torch.from_numpy(prototypes))
    torch_value.backward()
    torch_logits = model(torch_batch.words, torch_batch.lengths).detach()
    np.testing.assert_allclose(logits, torch_logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(value, float(torch_value.detach()), rtol=1e-5)
    named = weights(gradients)
    for name, peer in (("labels/queries", model.queries), ("classifier/weights", model.weights),
                       ("labels/head/bias", model.head.bias),
                       ("encoder/embedding", model.embedding.weight)):  # fmt: skip
        np.testing.assert_allclose(named[name], peer.grad, rtol=2e-3, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(named["labels/head/kernel"].T, model.head.weight.grad, rtol=2e-3, atol=1e-7)
    for side, suffix in (("forward", ""), ("backward", "_reverse")):
        for name, peer in (("w_input", "weight_ih_l0"), ("w_hidden", "weight_hh_l0"), ("bias", "bias_ih_l0")):
            gradient = getattr(model.lstm, peer + suffix).grad
            np.testing.assert_allclose(named[f"encoder/{side}/{name}"].T, gradient, rtol=2e-3, atol=1e-7, err_msg=name)


def test_features_of_positive_pairs_equal_ours(ours):
    batch, torch_batch = both_batches(ours, packed=True)
    model = torch_copy(ours, packed=True)
    variables = {"params": ours.params}
    states = ours.model.apply(variables, batch.words, batch.lengths, method=Lsfa.states)
    features = ours.model.apply(variables, states, batch.lengths, batch.label_ids, method=Lsfa.positive_features)
    torch_states = model.states(torch_batch.words, torch_batch.lengths)
    torch_features = model.pair_features(torch_states, torch_batch.lengths, torch_batch.document, torch_batch.label)
    np.testing.assert_allclose(np.asarray(features)[batch.label_mask], torch_features.detach(), rtol=1e-4, atol=1e-6)


def test_the_autoencoder_equals_ours(ours):
    model = transfer.make_pvae(ours.config, ours.shape.feature_size)
    variables = transfer.init_variables(model, jax.random.key(0))
    params = variables["params"]
    peer = torch_stages.PlainPvae(ours.shape.feature_size)
    layers = {"encoder_hidden": peer.hidden, "encoder_mu": peer.mu, "encoder_log_variance": peer.log_variance,
              "decoder_hidden": peer.decoder_hidden, "decoder_out": peer.out}  # fmt: skip
    for name, layer in layers.items():
        layer.weight.data = torch.from_numpy(np.array(params[name]["kernel"]).T)
        layer.bias.data = torch.from_numpy(np.array(params[name]["bias"]))
    v, p = np.random.default_rng(0).random((2, 5, ours.shape.feature_size), np.float32)
    noise = np.random.default_rng(1).standard_normal((5, model.latent_size)).astype(np.float32)
    outputs = model.apply(variables, v, p, noise)
    _, mu, log_variance = peer(torch.from_numpy(v), torch.from_numpy(p))
    decoded = peer.decode(mu + torch.from_numpy(noise) * torch.exp(0.5 * log_variance), torch.from_numpy(p))
    for output, torch_output in zip(outputs, (decoded, mu, log_variance), strict=True):
        np.testing.assert_allclose(output, torch_output.detach(), rtol=1e-4, atol=1e-5)


def test_both_step_on_the_same_documents():
    shape = SHAPES["tiny"]
    drawn = documents(shape, 0)
    rows = step_rows(drawn, shape)
    torch_batch = torch_model.TorchBatch(drawn, rows, 30, 12)
    batch = make(shape, 0).batch(rows, 12)
    np.testing.assert_array_equal(batch.words, torch_batch.words)
    np.testing.assert_array_equal(batch.lengths, torch_batch.lengths)
    np.testing.assert_array_equal(dense_targets(batch.label_ids, batch.label_mask, 30), torch_batch.targets)
