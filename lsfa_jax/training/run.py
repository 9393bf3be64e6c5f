"""The three stages in order, each resumable, into one run folder; the table at the end."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lsfa_jax.config import Config, Stage, TrainArguments
from lsfa_jax.data.batches import Batches, length_buckets
from lsfa_jax.data.corpus import Corpus, Split
from lsfa_jax.data.load import load_corpus, load_embedding
from lsfa_jax.evaluation import groups, thresholded
from lsfa_jax.evaluation.scorer import score_split
from lsfa_jax.model import prototypes
from lsfa_jax.model.lsfa import CLASSIFIER, make_model
from lsfa_jax.training import loop, model_folder, starting
from lsfa_jax.training.checkpoints import Checkpoints
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.stages import adjustment, representation, transfer
from lsfa_jax.training.state import TrainState, init_state, weights_to_use
from lsfa_jax.training.token_states import TokenStates
from lsfa_jax.util import compilation_cache, interrupts, sharding
from lsfa_jax.util.console import UserError, note, table, warn

# What the seed is folded with for each use of randomness.
_KEYS = {"model": 0, "representation": 1, "pvae": 2, "transfer": 3, "augmentation": 4, "adjustment": 5, "scratch": 6}


def train(arguments: TrainArguments) -> dict[str, Any]:
    """Runs the stages that the arguments name and returns what metrics.json holds.

    Raises:
        UserError: something is wrong with the data, the settings or the run folder.
        Interrupted: after SIGINT or SIGTERM, with the state saved.
    """
    stages = starting.consecutive(arguments.stages)
    config = starting.with_absolute_paths(arguments.settings())
    folder = RunFolder(Path(starting.with_output(arguments).output))
    starting.claim(folder, config, stages, arguments.resume)
    corpus = load_corpus(config)
    folder.check_corpus(corpus.words, corpus.labels)
    # Read before the folder is touched, so that a wrong file takes nothing with it.
    embedding = load_embedding(config, corpus.words)
    starting.forget(folder, config, stages, arguments.resume)
    folder.create(config, corpus.words, corpus.labels)
    note(f"Run folder: {folder.path}")
    try:
        with interrupts.deferred():
            return Pipeline(config, corpus, embedding, folder, arguments.save_every).run(stages)
    except interrupts.Interrupted:
        note(f"Interrupted, all is saved. Go on with: bin/train --output {folder.path} --resume")
        raise


class Pipeline:
    """One run: its corpus, its model, its devices, its folder."""

    def __init__(
        self, config: Config, corpus: Corpus, embedding: np.ndarray, folder: RunFolder, save_every: float
    ) -> None:
        self.config, self.corpus, self.folder, self.save_every = config, corpus, folder, save_every
        self.mesh = sharding.make_mesh()
        self.is_head = np.asarray(prototypes.is_head(corpus.label_counts, config.pvae.head_threshold))
        splits = (corpus.train, corpus.validation, corpus.test)
        longest = max(1, *(int(split.lengths.max(initial=1)) for split in splits))
        self.buckets = length_buckets(config.data.length_buckets, longest)
        self.train = self._batches(corpus.train, config.optimizer.batch_size)
        self.validation, self.test = (self._batches(split, config.report.batch_size) for split in splits[1:])
        self.embedding = embedding
        self.model = make_model(config, corpus.vocabulary_size, self.embedding.shape[1], corpus.num_labels)
        self.pvae = transfer.make_pvae(config, self.model.feature_size)
        self.states = {
            name: TokenStates(folder.token_states(name), getattr(corpus, name), 2 * config.encoder.hidden_size)
            for name in starting.KEPT_SPLITS
        }
        self.groups = groups.head_and_tail(self.is_head)
        self.metrics = folder.read_metrics() | {
            "dataset": corpus.name,
            "split": dict(zip(("train", "validation", "test"), map(len, splits), strict=True)),
            "num_labels": corpus.num_labels,
        }
        for name in ("stages", "seconds"):
            self.metrics.setdefault(name, {})

    def run(self, stages: Sequence[Stage]) -> dict[str, Any]:
        """Runs the stages, measures them on the test documents and prints the table; returns metrics.json's content."""
        self._describe()
        encoder = self._representation()
        self._test("representation", encoder)
        self._write_model("representation", encoder)
        if "transfer" in stages or "adjustment" in stages:
            learned = self._transfer(encoder, keep_states="adjustment" in stages)
            if "adjustment" in stages:
                adjusted = encoder | {CLASSIFIER: self._adjustment(encoder, learned)}
                self._test("adjusted", adjusted)
                self._write_model("adjusted", adjusted)
        if len(self.test.split):
            self._print_tables()
        note(compilation_cache.summary())
        return self.metrics

    def _describe(self) -> None:
        corpus, kinds = self.corpus, {device.device_kind for device in jax.local_devices()}
        sizes = ", ".join(f"{number:,} {name}" for name, number in self.metrics["split"].items())
        per_document = len(corpus.train.labels.values) / len(corpus.train)
        note(
            f"{corpus.name}: {sizes} documents; {corpus.num_labels:,} labels ({int(self.is_head.sum()):,} head, "
            f"{int((~self.is_head).sum()):,} tail at N_t = {self.config.pvae.head_threshold}), "
            f"{per_document:.2f} a document; {len(corpus.words):,} words"
        )
        note(
            f"Devices: {self.mesh.size} x {', '.join(sorted(kinds))}; {self.config.precision}; "
            f"texts padded to {', '.join(map(str, self.buckets))} words, {self.train.padding:.2f} for each real one"
        )
        if size := representation.shortlist_size(self.config, corpus.num_labels):
            note(f"Representation: {size:,} labels a step stand for all {corpus.num_labels:,}, at random")

    def _batches(self, split: Split, size: int) -> Batches:
        return Batches(split, self.corpus.num_labels, size, self.buckets, self.mesh.size)

    def _key(self, use: str) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self.config.seed), _KEYS[use])

    def _place(self, tree: Any) -> Any:
        return sharding.on_every_device(self.mesh, tree)

    def _validator(self, batches: Batches) -> Callable[[Any], dict[str, float]] | None:
        """Returns what measures weights on the validation documents; None without any."""

        def validate(params: Any) -> dict[str, float]:
            scores = score_split(self.model, params, batches, self.mesh, self.groups, title="validation")
            return groups.measure(scores.top, batches.split.labels, self.corpus, self.config.report)

        return validate if len(batches.split) else None

    def _run_stage(self, stage: loop.Stage, init: Callable[[], TrainState], checkpoints: Checkpoints) -> TrainState:
        """Runs a stage from its last checkpoint or from the start; a complete one is only read."""
        if checkpoints.exists:
            state = checkpoints.restore(sharding.abstract(self.mesh, jax.eval_shape(init)))
            if checkpoints.is_complete():
                return state
            if int(state.step):
                total = stage.epochs * stage.steps_per_epoch
                note(f"{stage.name}: going on after step {int(state.step):,} of {total:,}")
        else:
            state = self._place(init())
        started = time.monotonic()
        try:
            return loop.run(stage, state, checkpoints, self.folder)
        finally:
            seconds = self.metrics["seconds"]
            seconds[stage.name] = seconds.get(stage.name, 0.0) + time.monotonic() - started
            # A disk too full for this is told of by what failed before, or by the next write.
            with suppress(UserError):
                self.folder.write_metrics(self.metrics)

    def _checkpoints(self, stage: str) -> Checkpoints:
        return Checkpoints(self.folder.checkpoints(stage), self.save_every)

    def _representation(self) -> Any:
        config, model = self.config, self.model
        optimizer = make_optimizer(config.optimizer, config.optimizer.learning_rate)

        def init() -> TrainState:
            words, lengths = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
            params = jax.jit(model.init)(self._key("model"), words, lengths)["params"]
            params["embedding"] = jnp.asarray(self.embedding)
            params[CLASSIFIER] = self._at_prior(params[CLASSIFIER])
            extra = representation.no_prototypes(model)
            return init_state(self._key("representation"), params, optimizer, extra, average=True)

        validate = self._validator(self.validation)
        if validate is None:
            warn("no validation documents: every epoch runs, and the last weights are kept")
        stage = representation.make_stage(model, config, self.train, optimizer, self.mesh, validate)
        with self._checkpoints(stage.name) as checkpoints:
            fresh = not (checkpoints.exists and checkpoints.is_complete())
            state = self._run_stage(stage, init, checkpoints)
        if fresh:
            epochs = int(state.step) / stage.steps_per_epoch
            if int(state.num_averaged) == 0:
                warn(
                    f"no weights were averaged in {epochs:.3g} epochs: lower --optimizer.swa-start-epoch or "
                    f"--optimizer.swa-every (steps; an epoch has {stage.steps_per_epoch:,})"
                )
            if config.psc.weight > 0 and not bool(jnp.any(state.extra["present"])):
                warn(
                    f"the contrastive loss never took part in {epochs:.3g} epochs: --psc.start-epoch is too late for it"
                )
        return best_weights(state)

    def _at_prior(self, own: Any) -> Any:
        """Lets fresh classifiers start at the labels' mean frequency, if the settings say so.

        Among thousands of labels, the first hundreds of steps are else spent on making all of them improbable, and
        what this does to the features is slow to mend.
        """
        if not self.config.classifier.bias or self.config.classifier.bias_start == "zero":
            return own
        share = self.corpus.label_counts.sum() / (len(self.corpus.train) * self.corpus.num_labels)
        return own | {"bias": jnp.full_like(own["bias"], np.log(share) - np.log1p(-min(share, 0.999)))}

    def _collect(
        self, encoder: Any, split: Split, *files: transfer.HeadFeatures | TokenStates
    ) -> prototypes.FeatureSums:
        """Runs the encoder over documents, once for all that is to be kept of it."""
        collect, batches = transfer.make_collector(self.model), self._batches(split, self.config.optimizer.batch_size)
        with ExitStack() as until_whole:
            keeps = [until_whole.enter_context(file.filling()) for file in files]
            return transfer.collect_features(collect, encoder, batches, self.model.feature_size, self.mesh, *keeps)

    def _keeps(self, states: TokenStates) -> bool:
        own = self.config.adjust
        return not own.encoder_dropout and states.wanted(own.cache_states)

    def _encoded(self, encoder: Any, batches: Batches, states: TokenStates) -> Batches:
        """Returns the batches with token states in place of the words, if these are kept."""
        if not self._keeps(states):
            return batches
        if not states.decided:
            self._collect(encoder, batches.split, states)
        return self._batches(states.split(), batches.batch_size)

    def _transfer(self, encoder: Any, keep_states: bool) -> TrainState:
        config, model, pvae = self.config, self.model, self.pvae
        optimizer = make_optimizer(config.optimizer, config.pvae.learning_rate)
        features = transfer.HeadFeatures(
            self.folder.path / "checkpoints" / "features.npy", self.train, self.is_head, model.feature_size
        )
        trains = self.is_head.any() and not self.is_head.all()
        if not self.is_head.any():
            warn(
                f"no label has N_t = {config.pvae.head_threshold} training documents: the PVAE cannot be trained, and "
                "nothing is augmented; --pvae.head-threshold N sets N_t"
            )
        elif not trains:
            warn(f"every label has N_t = {config.pvae.head_threshold} training documents: there is no tail to augment")

        def init(sums: prototypes.FeatureSums) -> TrainState:
            params, statistics = transfer.init_variables(pvae, self._key("pvae"))
            extra = {"sums": sums, "batch_stats": statistics}
            return init_state(self._key("transfer"), params, optimizer, extra, validated=False)

        epochs = config.pvae.epochs if trains else 0
        stage = transfer.make_stage(pvae, config, features, optimizer, self.mesh, epochs)
        with self._checkpoints(stage.name) as checkpoints:
            fresh = not (checkpoints.exists and checkpoints.is_complete())
            empty = prototypes.no_features(model.num_labels, model.feature_size)
            if fresh and not (checkpoints.exists and features.path.exists()):
                states = self.states["train"]
                also = keep_states and self._keeps(states) and not states.decided
                sums = self._collect(encoder, self.corpus.train, *([states] if also else []), features)
                if not checkpoints.exists:
                    checkpoints.save(self._place(init(sums)))
            state = self._run_stage(stage, lambda: init(empty), checkpoints)
        # Also in a run that was killed after the stage's last checkpoint and before this.
        features.path.unlink(missing_ok=True)
        if trains and "pvae" not in self.metrics:
            labels = np.flatnonzero(~self.is_head & (self.corpus.label_counts > 0))
            self.metrics["pvae"] = transfer.diagnose(pvae, state, labels, self._key("augmentation"))
            self.folder.write_metrics(self.metrics)
        return state

    def _adjustment(self, encoder: Any, learned: TrainState) -> Any:
        config, model = self.config, self.model
        optimizer = make_optimizer(config.optimizer, config.adjust.learning_rate)
        sums: prototypes.FeatureSums = learned.extra["sums"]
        frozen = adjustment.Frozen(
            encoder={name: value for name, value in encoder.items() if name != CLASSIFIER},
            prototypes=prototypes.prototypes(sums),
            pvae=learned.params,
            pvae_statistics=learned.extra["batch_stats"],
            key=self._key("augmentation"),
        )

        def init() -> TrainState:
            own = encoder[CLASSIFIER]
            if config.adjust.init == "scratch":
                words, lengths = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
                own = self._at_prior(jax.jit(model.init)(self._key("scratch"), words, lengths)["params"][CLASSIFIER])
            # The loop gives the state's memory away at every step, and the encoder's classifiers are still needed.
            own = jax.tree.map(jnp.array, own)
            return init_state(self._key("adjustment"), own, optimizer, average=config.adjust.average)

        # A label that only held-out documents have has no prototype to vary around.
        tail = np.flatnonzero(~self.is_head & (np.asarray(sums.counts) > 0)) if self.is_head.any() else np.zeros(0, int)
        with self._checkpoints(adjustment.NAME) as checkpoints:
            train, validation = self.train, self.validation
            if not (checkpoints.exists and checkpoints.is_complete()):
                train = self._encoded(encoder, train, self.states["train"])
                validation = self._encoded(encoder, validation, self.states["validation"])
            stage = adjustment.make_stage(
                model,
                config,
                train,
                tail,
                frozen,
                lambda params, statistics: transfer.decoder(self.pvae, params, statistics),
                optimizer,
                self.mesh,
                self._validator(validation),
            )
            state = self._run_stage(stage, init, checkpoints)
        for states in self.states.values():
            states.remove()
        return best_weights(state)

    def _test(self, name: str, params: Any) -> None:
        """Chooses the threshold on validation documents, measures on these and on test documents; once."""
        results = self.metrics["stages"]
        if "threshold" not in results.get(name, {}):
            results[name] = {"threshold": thresholded.DEFAULT_THRESHOLD}
            for split, batches in (("validation", self.validation), ("test", self.test)):
                if not len(batches.split):
                    continue
                title, truth, report = f"{name} on {split}", batches.split.labels, self.config.report
                scores = score_split(self.model, params, batches, self.mesh, self.groups, title=title)
                if split == "validation" and scores.histogram is not None:
                    results[name]["threshold"] = thresholded.best_threshold(scores.histogram, len(truth.values))
                results[name][split] = groups.measure(scores.top, truth, self.corpus, report, self.is_head)
                if split == "test":
                    results[name]["macro_P@5_bins"] = groups.macro_precision_bins(
                        scores.top[0], truth, self.corpus, report.bin_size
                    )
        if len(self.test.split):
            self.metrics["test"] = results.get("adjusted", results[name])["test"]
        self.folder.write_metrics(self.metrics)

    def _write_model(self, name: str, params: Any) -> None:
        """Writes what predicting needs; weights of an earlier stage are there until a later one has better ones."""
        corpus = self.corpus
        trained = model_folder.TrainedModel(
            config=self.config,
            words=corpus.words,
            labels=corpus.labels[: corpus.num_labels],
            label_counts=corpus.published_counts[: corpus.num_labels],
            num_documents=corpus.published_documents,
            threshold=self.metrics["stages"][name]["threshold"],
            params=sharding.host(params),
        )
        model_folder.write(self.folder.path, trained)

    def _print_tables(self) -> None:
        before = self.metrics["stages"]["representation"]["test"]
        after = self.metrics["stages"].get("adjusted", {}).get("test")
        names = ("all", "head", "tail")
        # A group that no test document has a label of has no figures; 0.00 would look like failure.
        in_head = groups.head_of_all_labels(self.corpus, self.is_head)
        occurring = in_head[self.corpus.test.labels.values]
        measured = {"all": len(occurring) > 0, "head": bool(occurring.any()), "tail": bool((~occurring).any())}
        header = ["test documents"]
        for group in names:
            header += [group, "adjusted"] if after else [group]
        rows = []
        for metric in (name for name in before if name not in names):
            row = [metric]
            for group in names:
                results = [before] if after is None else [before, after]
                values = [(one if group == "all" else one[group])[metric] for one in results]
                row += [f"{value:.2f}" if measured[group] else "-" for value in values]
            if after:
                row.append(f"{after['tail'][metric] - before['tail'][metric]:+.2f}" if measured["tail"] else "-")
            rows.append(row)
        header += ["change"] if after else []
        title = "Before and after augmentation, percent" if after else "Representation learning, percent"
        table(f"{self.corpus.name}: {title}", header, rows)
        if "pvae" in self.metrics:
            error, ratio = self.metrics["pvae"]["relative_mean_error"], self.metrics["pvae"]["variance_ratio"]
            note(
                f"Generated tail features: relative mean error {error:.3f} (0 is best), variance ratio {ratio:.3f} (1)"
            )
        times = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in self.metrics["seconds"].items())
        note(f"Time: {times}. All of it is in {self.folder.path}")


def best_weights(state: TrainState) -> Any:
    """Returns the weights that did best on validation; without validation, the last ones (averaged where SWA began)."""
    if np.isfinite(float(state.best_score)):
        return state.best
    return weights_to_use(state)
