"""Our training step beside the same step written plainly in PyTorch, in one run, on the CPU.

    python benchmarks/training_step.py                 # RCV1's shape, sizes of the paper
    python benchmarks/training_step.py --hidden 128 --feature 128 --words 200

One step is forward, backward and Adam on one padded batch. Both take turns; figures are medians, compilation apart. An
epoch is added up from the steps: ours in length buckets, PyTorch's in random batches padded to their longest text.
Needs the extra `peers`.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from rcv1_like import rcv1_like

from lsfa_jax.config import Classifier, Config, Encoder
from lsfa_jax.console import note, table
from lsfa_jax.data.batches import Batches
from lsfa_jax.memory import keep_freed_memory
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.training import representation
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.state import init_state


class Plain(torch.nn.Module):
    """The model as its users write it: nn.LSTM on the padded batch, dense label attention."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, feature: int, labels: int, dropout: bool) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, embedding)
        self.lstm = torch.nn.LSTM(embedding, hidden, batch_first=True, bidirectional=True)
        self.queries = torch.nn.Parameter(torch.empty(labels, 2 * hidden))
        self.head = torch.nn.Linear(2 * hidden, feature)
        self.weights = torch.nn.Parameter(torch.empty(labels, feature))
        torch.nn.init.xavier_uniform_(self.queries)
        torch.nn.init.xavier_uniform_(self.weights)
        self.drop = (torch.nn.Dropout(0.2), torch.nn.Dropout(0.5)) if dropout else (torch.nn.Identity(),) * 2

    def forward(self, words: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.drop[1](self.lstm(self.drop[0](self.embedding(words)))[0])
        scores = (states @ self.queries.T).masked_fill(~mask[..., None], -1e30)
        features = torch.relu(self.head(torch.softmax(scores, dim=1).transpose(1, 2) @ states))
        return (features * self.weights).sum(-1)


def plain_loss(model: Plain, words: np.ndarray, lengths: np.ndarray, targets: np.ndarray) -> torch.Tensor:
    """Mean binary cross-entropy over documents and labels."""
    ids = torch.from_numpy(words).long()
    mask = torch.arange(ids.shape[1])[None] < torch.from_numpy(lengths)[:, None]
    return torch.nn.functional.binary_cross_entropy_with_logits(model(ids, mask), torch.from_numpy(targets))


def copy_weights(params: dict, model: Plain) -> None:
    """Gives the PyTorch model our weights; it keeps two bias vectors where one is enough."""

    def put(target: torch.Tensor, value: jax.Array) -> None:
        target.data.copy_(torch.from_numpy(np.array(value)))

    put(model.embedding.weight, params["embedding"])
    for side, suffix in (("forward", ""), ("backward", "_reverse")):
        put(getattr(model.lstm, f"weight_ih_l0{suffix}"), params[f"lstm_{side}_w_input"].T)
        put(getattr(model.lstm, f"weight_hh_l0{suffix}"), params[f"lstm_{side}_w_hidden"].T)
        put(getattr(model.lstm, f"bias_ih_l0{suffix}"), params[f"lstm_{side}_bias"])
        getattr(model.lstm, f"bias_hh_l0{suffix}").data.zero_()
    put(model.queries, params["label_queries"])
    put(model.head.weight, params["head_kernel"].T)
    put(model.head.bias, params["head_bias"])
    put(model.weights, params["classifier"]["weights"])


def seconds(run: Callable[[], object]) -> float:
    """Times one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("documents", 23_149), ("labels", 101), ("vocabulary", 72_595), ("embedding", 50),
                          ("hidden", 256), ("feature", 300), ("batch", 40), ("words", 500), ("rounds", 7)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()

    # For both: they share the process.
    keep_freed_memory()
    split = rcv1_like(args.documents, args.labels, args.vocabulary, args.words)
    buckets = [size for size in Config().data.length_buckets if size < args.words] + [args.words]
    batches = Batches(split, args.labels, args.batch, buckets)
    config = Config(encoder=Encoder(hidden_size=args.hidden, feature_size=args.feature))
    model = Lsfa(args.vocabulary, args.embedding, args.labels, config.encoder, Classifier())
    optimizer = make_optimizer(config.optimizer, 1e-3)
    one = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), *one)["params"]

    # Gradients that fade over padding become denormal numbers, which slow PyTorch down tenfold and mean nothing here.
    torch.set_flush_denormal(True)
    exact = Plain(args.vocabulary, args.embedding, args.hidden, args.feature, args.labels, dropout=False)
    copy_weights(params, exact)
    words = split.words[: args.batch * 64].reshape(args.batch, 64)
    lengths, targets = np.full(args.batch, 64), np.zeros((args.batch, args.labels), np.float32)
    ours = jnp.mean(jax.nn.softplus(model.apply({"params": params}, words, lengths.astype(np.int32))))
    with torch.no_grad():
        theirs = float(plain_loss(exact, words, lengths, targets))
    np.testing.assert_allclose(float(ours), theirs, rtol=1e-5)
    note(f"Same weights, same loss: {float(ours):.7f} here, {theirs:.7f} in PyTorch")

    state = init_state(jax.random.key(0), params, optimizer, representation.no_prototypes(model))
    step = representation.make_step(model, config, optimizer)
    plain = Plain(args.vocabulary, args.embedding, args.hidden, args.feature, args.labels, dropout=True)
    adam = torch.optim.Adam(plain.parameters())

    def plain_step(rows: np.ndarray, num_words: int) -> None:
        batch = Batches(split.take(rows), args.labels, len(rows), [num_words]).gather(np.arange(len(rows)))
        targets = np.zeros((len(rows), args.labels), np.float32)
        targets[np.nonzero(batch.label_mask)[0], batch.label_ids[batch.label_mask]] = 1
        adam.zero_grad()
        plain_loss(plain, batch.words, batch.lengths, targets).backward()
        adam.step()

    rows, ours_epoch, compile_seconds, ratios = [], 0.0, 0.0, {}
    for bucket, size in enumerate(buckets):
        members = np.flatnonzero(batches.bucket_of == bucket)
        if len(members) < args.batch:
            continue
        batch = batches.gather(members[: args.batch])

        def our_step(batch=batch) -> None:
            nonlocal state
            state = step(state, batch, False)
            jax.block_until_ready(state.params)

        compile_seconds += seconds(our_step)
        plain_step(members[: args.batch], size)
        pairs = [
            (seconds(our_step), seconds(lambda m=members, s=size: plain_step(m[: args.batch], s)))
            for _ in range(args.rounds)
        ]
        mine, other = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
        ratio = [pair[0] / pair[1] for pair in pairs]
        count = -(-len(members) // args.batch)
        ours_epoch += count * mine
        ratios[size] = mine / other
        rows.append([f"step, {size} words", f"{mine * 1e3:.0f}", f"{other * 1e3:.0f}", f"{mine / other:.2f}",
                     f"{min(ratio):.2f}-{max(ratio):.2f}", str(count)])  # fmt: skip

    random, theirs_epoch, sampled = np.random.default_rng(1), [], 3 * args.rounds
    for _ in range(sampled):
        members = random.choice(len(split), args.batch, replace=False)
        theirs_epoch.append(seconds(lambda m=members: plain_step(m, int(split.lengths[m].max()))))
    other = statistics.mean(theirs_epoch) * len(split) / args.batch
    ratios["epoch"] = ours_epoch / other
    rows.append(["epoch (added up)", f"{ours_epoch * 1e3:.0f}", f"{other * 1e3:.0f}", f"{ours_epoch / other:.2f}", "",
                 str(batches.steps_per_epoch)])  # fmt: skip
    header = ["", "here ms", "torch ms", "ratio", "range", "batches"]
    table(f"Training step, {args.batch} documents, hidden {args.hidden}, {args.labels} labels", header, rows)
    padded = sum(len(chunk) * buckets[batches.bucket_of[chunk[0]]] for chunk in batches.in_order())
    note(f"First calls with compilation: {compile_seconds:.1f} s. Words computed/real {padded / len(split.words):.2f}. "
         f"Peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB. "
         f"{jax.devices()[0].device_kind}, {torch.get_num_threads()} threads, jax {jax.__version__}, "
         f"torch {torch.__version__}")  # fmt: skip
    if args.json:
        with open(args.json, "w") as file:  # noqa: PTH123
            json.dump({str(name): value for name, value in ratios.items()}, file)


if __name__ == "__main__":
    main()
