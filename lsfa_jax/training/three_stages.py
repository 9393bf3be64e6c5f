"""The three stages in order, each resumable, measured and written into one run folder."""

import functools
import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lsfa_jax.config import Config, StageName
from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.evaluation import ranking
from lsfa_jax.evaluation.groups import Metrics, Scores
from lsfa_jax.evaluation.scorer import score_split
from lsfa_jax.model import httn, logit_adjustment, prototypes
from lsfa_jax.model.generators import Generator
from lsfa_jax.model.lsfa import init_params, make_model, without_padding
from lsfa_jax.model.tau_norm import tau_normalised
from lsfa_jax.sparse import fusion
from lsfa_jax.sparse.linear import TITLES
from lsfa_jax.training import (
    candidates,
    discriminants,
    fused,
    linear_side,
    loop,
    model_folder,
    partition,
    policy,
    prior,
    shortlist,
    starting_model,
    summary,
    time_limit,
)
from lsfa_jax.training.checkpoints import Checkpoints, NoCheckpoints
from lsfa_jax.training.collection import LabelFeatures, zero_sums
from lsfa_jax.training.initial_encoder import InitialEncoder
from lsfa_jax.training.inputs import Inputs
from lsfa_jax.training.linear_side import LinearSide
from lsfa_jax.training.model_folder import TrainedModel
from lsfa_jax.training.optimizer import for_adjustment, make_fine_tuning_optimizer, make_optimizer
from lsfa_jax.training.results import Results
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.stages import transfer
from lsfa_jax.training.stages.adjustment import Adjustment, FrozenParams
from lsfa_jax.training.stages.closed_form import EXPONENTS, RIDGES, ClosedForm, Formula
from lsfa_jax.training.stages.representation import Representation
from lsfa_jax.training.stages.transfer import Transfer
from lsfa_jax.training.state import TrainState, best_params, with_best_on_host, without_training
from lsfa_jax.types import Array, HostArray, ParamDict, PyTree
from lsfa_jax.util import compilation_cache, processes, sharding
from lsfa_jax.util.console import UserError, note, plural, warn
from lsfa_jax.util.random_streams import Stream
from lsfa_jax.util.random_streams import key as random_key
from lsfa_jax.util.sharding import Tree


class Run:
    """The corpus, model, devices and folder of a run."""

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        encoder: InitialEncoder,
        folder: RunFolder,
        save_every: float,
        deadline: float = math.inf,
        chosen: Collection[str] = (),
        start: TrainedModel | None = None,
    ) -> None:
        """Prepares batches and the model; compiles nothing yet.

        Args:
            config: all settings.
            corpus: the documents.
            encoder: what the encoder starts from.
            folder: the run folder.
            save_every: seconds between checkpoints; infinity: no checkpoints, so that the run cannot be resumed.
            deadline: time (`time.monotonic`) before which the run ends, if need be with fewer epochs of stage 1.
            chosen: dotted names of the settings that a time limit may not change.
            start: the model whose rows of known labels stage 1 starts from; None: all are new.
        """
        self.start = start
        self.on_validation: loop.OnValidation | None = None
        self.config, self.corpus, self.folder, self.save_every = config, corpus, folder, save_every
        self._deadline, self._chosen, self._started = deadline, chosen, time.monotonic()
        self.initial_encoder = encoder
        self.mesh = make_mesh(config)
        sharding.connect(self.mesh)
        self.is_head = np.asarray(prototypes.is_head(corpus.label_counts, config.pvae.head_threshold))
        self.model = make_model(config, encoder.shape, corpus.num_labels, self.mesh.shape["label"])
        pvae = transfer.make_pvae(config, self.model.feature_size)
        self.generator = Generator(config.transfer.method, pvae)
        self.inputs = Inputs(config, corpus, self.model, self.mesh, folder)
        self.results = Results(folder, corpus, config, self.is_head)

    def execute(self, stages: Sequence[StageName]) -> dict[str, Any]:
        """Runs the stages, measures each and prints the results; returns the content of metrics.json.

        Raises:
            UserError: the run cannot continue.
            Interrupted: after a signal that `interrupts.deferred` deferred; the state is saved.
        """
        linear = self._linear()
        self._choose_candidates(linear)
        params = self._representation()
        self._measure("representation", params)
        self._keep("representation", params, linear)
        best = params
        if "transfer" in stages or "adjustment" in stages:
            learned = self._transfer(params, keep_states="adjustment" in stages)
            if "adjustment" in stages:
                params = params | {"classifier": self._adjustment(params, learned)}
                self._measure("adjusted", params)
                if self.results.is_better("adjusted", "representation"):
                    best = params
                    self._keep("adjusted", params, linear)
        if linear and self.config.fusion == "auto":
            self._fuse(best, linear)
        self.results.finish()
        self.inputs.remove_states(token_states=not self.folder.keeps_states)
        if "test" in self.results.splits:
            seconds = time.monotonic() - self._started
            summary.print_results(self.corpus, self.is_head, self.results.metrics, self.folder.path, seconds)
        note(compilation_cache.summary())
        return self.results.metrics

    def _placed(self, tree: Tree) -> Tree:
        """Puts a tree on the devices, tables with one row per label split over the axis `label`."""
        return sharding.place(self.mesh, tree, self.model.num_rows)

    def _created(self, create: Callable[..., Tree], *arguments: PyTree) -> Tree:
        """Computes a tree on the devices, tables with one row per label split over the axis `label`."""
        return sharding.created(self.mesh, self.model.num_rows, create, *arguments)

    def _key(self, use: Stream) -> Array:
        return random_key(use, self.config.seed)

    def _init_params(self, use: Stream) -> ParamDict:
        starts = self.initial_encoder.params

        def drawn(key: Array) -> ParamDict:
            # Without what the encoder starts from: to draw 22 million weights of a pretrained one takes seconds.
            params = init_params(self.model, key)
            return params | {"encoder": {name: x for name, x in params["encoder"].items() if name not in starts}}

        params = self._created(drawn, self._key(use))
        encoder = params["encoder"] | starts
        classifier = prior.start(params["classifier"], self.config, self.corpus)
        return self._placed(params | {"encoder": encoder, "classifier": classifier})

    def _with_known_labels(self, params: ParamDict) -> ParamDict:
        """Returns parameters with the rows that the starting model has for known labels; without one, as they are."""
        if self.start is None:
            return params
        rows = starting_model.known_rows(self.start, self._labels, self.model.num_rows)
        return self._placed(starting_model.with_known_labels(params, self.start, rows))

    @property
    def _labels(self) -> list[str]:
        return self.corpus.labels[: self.corpus.num_labels]

    def _validator(self, batches: Batches) -> Callable[[PyTree], Metrics] | None:
        """Returns the function that computes validation metrics of parameters; None without validation documents."""

        def validate(params: PyTree) -> Metrics:
            return self.results.validation_metrics(self._scores(params, batches, "validation"))

        return validate if len(batches.split) else None

    def _run_stage(
        self, stage: loop.Stage, init: Callable[[], TrainState], checkpoints: Checkpoints | NoCheckpoints
    ) -> TrainState:
        """Runs a stage from its last checkpoint or from the start; a complete stage is only restored."""
        if checkpoints.exists:
            num_rows = self.model.num_rows
            is_complete = checkpoints.is_complete()
            shapes = jax.eval_shape((lambda: without_training(init())) if is_complete else init)
            state = checkpoints.restore(sharding.abstract(self.mesh, shapes, num_rows), num_rows)
            if is_complete:
                return state
            if int(state.step):
                total = stage.epochs * stage.steps_per_epoch
                note(f"{stage.name}: continues after step {int(state.step):,} of {total:,}")
        else:
            state = init()
        if self.config.devices.best_weights == "host":
            state = with_best_on_host(state)
        start = time.monotonic()
        try:
            return loop.run(stage, state, checkpoints, self.folder, self._advice(), self.on_validation)
        finally:
            self.results.add_seconds(stage.name, time.monotonic() - start)
            # If the disk is full, the exception that is already raised, or the next write, reports it.
            with suppress(UserError):
                self.results.write()

    def _advice(self) -> str:
        """What to do about a stage that takes long on these devices."""
        if jax.default_backend() != "cpu" or self.config.preset != "full":
            return ""
        return (
            "This is the full preset, which is for a GPU, on a CPU. The quick preset is for laptops (smaller layers, "
            "shorter texts, fewer epochs): stop with Ctrl-C, and start with --preset quick and another --output"
        )

    def _checkpoints(self, stage: str) -> Checkpoints | NoCheckpoints:
        if math.isinf(self.save_every):
            return NoCheckpoints()
        return Checkpoints(self.folder.checkpoints(stage), self.save_every)

    def _plan_epochs(self, train: Batches, frozen: PyTree) -> None:
        """Times a few steps of stage 1 and keeps, in the settings too, the epochs with which the run ends in time."""
        stage = self._first_stage(train, None, frozen)
        state = self._first_state(stage)
        sizes = time_limit.Sizes(**{name: len(split) for name, split in self.inputs.splits.items()})
        most = policy.most_epochs_in_time(self.config, self._chosen)
        # The plan must not reserve their place yet: what is kept is decided after stage 1.
        stores_states = self.inputs.may_keep_states
        epochs = time_limit.fitted_epochs(stage, state, self.config, sizes, most, self._deadline, stores_states)
        self.config = policy.with_epochs(self.config, epochs, self._chosen)
        self.folder.write_config(self.config)

    def _first_stage(
        self, train: Batches, validate: Callable[[PyTree], Metrics] | None, frozen: PyTree
    ) -> Representation:
        steps = self.config.representation.epochs * train.steps_per_epoch
        optimizer = make_fine_tuning_optimizer(self.config.optimizer, steps)
        return Representation(self.model, self.config, train, optimizer, self.mesh, validate, frozen)

    def _first_state(self, stage: Representation, classifiers: ParamDict | None = None) -> TrainState:
        """Returns the state before the first step, with classifiers to start from if there are any."""
        params = self._with_known_labels(self._init_params(Stream.MODEL))
        trained, _ = partition.split(params | {"classifier": classifiers or params["classifier"]}, self.config.encoder)
        state = self._created(stage.init, self._key(Stream.REPRESENTATION), trained)
        # A trained model is validated first: where training does not improve it, its weights are kept.
        return state if self.start is None else replace(state, validated=state.validated - 1)

    def _starting_classifiers(self, train: Batches) -> ParamDict | None:
        """Returns the classifiers that stage 1 starts from; None where they are random, or all those of a model."""
        config = self.config.classifier
        if config.weights == "shared":
            return None
        has_all = self.start is not None and set(self._labels) <= set(self.start.labels)
        if has_all or (self.start is None and config.weights_start == "random"):
            return None
        params = self._with_known_labels(self._init_params(Stream.MODEL))
        moments = discriminants.collect(self.model, params, train, self.mesh)
        counts, documents = self.corpus.label_counts, len(train.split)
        classifiers = discriminants.start(params["classifier"], moments, counts, documents)
        classifier: ParamDict = self._with_known_labels(params | {"classifier": classifiers})["classifier"]
        return self._placed(classifier)

    def _representation(self) -> ParamDict:
        """Runs stage 1 and returns the parameters that did best on validation."""
        config = self.config
        _, frozen = partition.split({"encoder": self.initial_encoder.params}, config.encoder)
        frozen = sharding.replicate(self.mesh, frozen)
        summary.print_start(
            config,
            self.corpus,
            self.inputs.train,
            self.is_head,
            0 if self.inputs.have_candidates else shortlist.size(config, self.corpus.num_labels),
        )
        if not len(self.inputs.validation.split):
            warn("no validation documents: every epoch runs, and the last weights are kept")

        with self._checkpoints(Representation.name) as checkpoints:
            runs_now = not checkpoints.is_complete()
            self.inputs.store_hidden_states(functools.partial(self._init_params, Stream.MODEL) if runs_now else None)
            train, validation = self.inputs.train, self.inputs.validation
            if runs_now and config.encoder.train == "frozen":
                params = self._init_params(Stream.MODEL)
                train = self.inputs.encoded(params, "train", train)
                validation = self.inputs.encoded(params, "validation", validation)
            if not checkpoints.exists and math.isfinite(self._deadline):
                self._plan_epochs(train, frozen)
            stage = self._first_stage(train, self._validator(validation), frozen)
            classifiers = None if checkpoints.exists else self._starting_classifiers(train)
            state = self._run_stage(stage, lambda: self._first_state(stage, classifiers), checkpoints)
        if runs_now:
            self._warn_of_unused_parts(stage, state)
        return partition.join(frozen, best_params(state))

    def _warn_of_unused_parts(self, stage: loop.Stage, state: TrainState) -> None:
        epochs = int(state.step) / stage.steps_per_epoch
        if int(state.num_averaged) == 0:
            warn(
                f"no weights were averaged in {epochs:.3g} epochs: lower --optimizer.swa-start-epoch or "
                f"--optimizer.swa-every (steps; an epoch has {stage.steps_per_epoch:,})"
            )
        if self.config.psc.weight > 0 and not bool(jnp.any(state.extra["present"])):
            warn(f"the contrastive loss was not used in {epochs:.3g} epochs: lower --psc.start-epoch")

    def _transfer(self, params: ParamDict, keep_states: bool) -> TrainState:
        """Collects prototypes and features of the training documents and runs stage 2."""
        config, features_file = self.config, self.folder.features_file
        chosen = transfer.learns_from(config, self.is_head)
        features = LabelFeatures(features_file, self.inputs.train, chosen, self.model.feature_size)
        trains, method = self._check_head_and_tail(), config.transfer.method
        optimizer = make_optimizer(config.optimizer, config.pvae.learning_rate)
        epochs = config.pvae.epochs if trains and method == "pvae" else 0
        stage = Transfer(self.generator.pvae, config, features, optimizer, self.mesh, epochs)

        sums = zero_sums(self.model, self.mesh)
        rival = transfer.empty_rival(config, features, sums, self.is_head)

        def init() -> TrainState:
            return self._created(stage.init, self._key(Stream.TRANSFER), self._key(Stream.PVAE), sums, rival)

        with self._checkpoints(stage.name) as checkpoints:
            has_features = processes.from_first(features_file.exists)
            if not checkpoints.is_complete() and not (checkpoints.exists and has_features):
                states = self.inputs.token_states["train"]
                also = keep_states and self.inputs.keeps(states) and not states.decided
                # The states of a frozen encoder are stored already.
                batches = self.inputs.train
                if config.encoder.train == "frozen":
                    batches = self.inputs.encoded(params, "train", batches)
                sums = self.inputs.collect(params, batches, *([states] if also else []), features)
                rival = transfer.fit_rival(config, features, sums, self.is_head)
                if not checkpoints.exists:
                    checkpoints.save(init())
            state = self._run_stage(stage, init, checkpoints)
        # Also after a run that was killed between the stage's last checkpoint and this line.
        if processes.is_first():
            features_file.unlink(missing_ok=True)
        if trains and method != "none" and "pvae" not in self.results.metrics:
            tail = np.flatnonzero(~self.is_head & (self.corpus.label_counts > 0))
            self.results.metrics["pvae"] = transfer.diagnose(
                self.generator, state, tail, self._key(Stream.AUGMENTATION)
            )
            self.results.write()
        return state

    def _check_head_and_tail(self) -> bool:
        """Whether there are labels to learn from and labels to augment; warns if not."""
        threshold = self.config.pvae.head_threshold
        if not self.is_head.any():
            warn(
                f"no label has N_t = {threshold} training documents: the PVAE is not trained and no features are "
                "generated; lower --pvae.head-threshold"
            )
        elif self.is_head.all():
            warn(f"every label has N_t = {threshold} training documents: no label is rare; raise --pvae.head-threshold")
        return bool(self.is_head.any() and not self.is_head.all())

    def _adjustment(self, params: ParamDict, learned: TrainState) -> PyTree:
        """Runs stage 3 and returns the classifiers that did best on validation."""
        config = self.config
        if config.classifier.weights == "shared" and config.adjust.method in ("tau_norm", "httn", "logit_adjustment"):
            raise UserError(
                f"--adjust.method {config.adjust.method}: needs a classifier for each label, not a shared one"
            )
        sums: prototypes.FeatureSums = learned.extra["sums"]
        frozen = FrozenParams(
            params={name: value for name, value in params.items() if name != "classifier"},
            prototypes=prototypes.prototypes(sums),
            learned=transfer.learned(learned),
            key=self._key(Stream.AUGMENTATION),
            offsets=self._logit_offsets(),
        )
        # A label without training documents has no prototype, so no features are generated for it.
        counts = sharding.to_host(sums.counts)[: len(self.is_head)]
        in_tail = ~self.is_head & (counts > 0) & self.is_head.any()
        closed_form = self._closed_form(frozen, in_tail)
        with self._checkpoints(Adjustment.name) as checkpoints:
            train, validation = self.inputs.train, self.inputs.validation
            if not checkpoints.is_complete():
                if not closed_form:
                    train = self.inputs.encoded(params, "train", train)
                validation = self.inputs.encoded(params, "validation", validation)
            stage: ClosedForm | Adjustment
            if closed_form:
                stage = ClosedForm(config, params, *closed_form, self._validator(validation))
            else:
                stage = Adjustment(
                    self.model,
                    config,
                    train,
                    np.flatnonzero(in_tail),
                    frozen,
                    self.generator,
                    make_optimizer(for_adjustment(config.optimizer), config.adjust.learning_rate),
                    self.mesh,
                    self._validator(validation),
                )

            def init() -> TrainState:
                scratch = config.adjust.init == "scratch"
                classifier = (self._init_params(Stream.SCRATCH) if scratch else params)["classifier"]
                return self._created(stage.init, self._key(Stream.ADJUSTMENT), classifier)

            state = self._run_stage(stage, init, checkpoints)
        return best_params(state)

    def _closed_form(self, frozen: FrozenParams, in_tail: HostArray) -> tuple[Formula, Sequence[float]] | None:
        """Returns the formula of the classifiers and the values of its constant; None where they are trained."""
        if self.config.adjust.method == "tau_norm":
            return tau_normalised, EXPONENTS
        if self.config.adjust.method == "httn":
            is_head, is_tail = self._of_labels(self.is_head), self._of_labels(in_tail)
            return lambda classifier, ridge: httn.transferred(
                classifier, frozen.prototypes, is_head, is_tail, ridge
            ), RIDGES
        return None

    def _of_labels(self, values: HostArray) -> Array:
        """Puts an array with a value for each label on the devices, padded with zeros."""
        return self._placed(sharding.pad_rows(jnp.asarray(values), self.model.num_rows))

    def _logit_offsets(self) -> Array | None:
        """Returns what logit adjustment adds to the logits of the labels in the loss, float32[L]; None without it."""
        if self.config.adjust.method != "logit_adjustment":
            return None
        counts, documents = self.corpus.label_counts, len(self.inputs.train.split)
        offsets = logit_adjustment.offsets(counts, documents, self.config.adjust.tau)
        return self._of_labels(offsets)

    def _linear(self) -> LinearSide | None:
        """Trains the linear models and measures them."""
        start = time.monotonic()
        config, corpus = self.config, self.corpus
        wanted = candidates.resolved(config, corpus.num_labels) == "linear"
        number = config.representation.num_candidates if wanted else 0
        linear = linear_side.train(config, corpus, number, self.folder.linear, model_folder.ADVICE)
        for kind, lists in linear.lists.items() if linear else ():
            self.results.add_linear(kind, lists)
        if linear:
            self.results.set_seconds("linear", time.monotonic() - start)
            self.results.write()
        return linear

    def _choose_candidates(self, linear: LinearSide | None) -> None:
        """Resolves the setting `candidates`, and gives the batches those of their documents."""
        config, corpus = self.config, self.corpus
        setting = candidates.resolved(config, corpus.num_labels)
        if linear is None:
            if config.candidates == "linear":
                raise UserError("--candidates linear: there is no linear model that could propose labels")
            setting = "all"
        self.config = config = config.model_copy(update={"candidates": setting})
        # A run that continues has the same loss, whatever is installed by then.
        self.folder.write_config(config)
        if linear is None or setting == "all":
            return
        number = config.representation.num_candidates
        self.inputs.set_candidates(linear, number)
        recall = ranking.recall(linear.ranked("validation").label_ids[:, :number], corpus.validation.labels)
        note(
            f"Each document is compared with {number:,} of {corpus.num_labels:,} labels, which the "
            f"{TITLES[linear.model.kind]} proposes; they hold {recall:.1f} % of the validation documents' labels"
        )

    def _fuse(self, params: ParamDict, linear: LinearSide) -> None:
        """Fits the fused score, measures it and writes the model with it."""
        corpus, title = self.corpus, TITLES[linear.model.kind]
        counts = corpus.published_counts[: corpus.num_labels]
        validation = self.inputs.held_out(params, "validation")
        weights, evidence = fused.fit(self.model, params, validation, self.mesh, linear, counts, self.config.seed)
        documents = plural(len(self.inputs.validation.split), "validation document")
        if evidence is None:
            note(f"Fused; {documents} are too few to say what the network adds to the {title}")
        else:
            note(f"Fused on {documents}: N@5 {evidence.gain:+.2f} against the {title} alone")
        if weights.leaves_network_out:
            note(fusion.alone(linear.model.kind))
        self.results.add_evidence(linear.model.kind, weights, evidence)
        scoring = sharding.pad_rows(weights.for_scoring, self.model.num_rows)
        self._measure("fused", params | {"fusion": self._placed(scoring)}, linear, again=True)
        self._keep("fused", params | {"fusion": weights}, linear)

    def _measure(self, name: str, params: ParamDict, linear: LinearSide | None = None, again: bool = False) -> None:
        """Measures a model on validation and test documents, unless metrics.json has it."""
        if again or not self.results.has(name):
            self.results.begin(name)
            for split in self.results.splits:
                batches = self.inputs.held_out(params, split, linear)
                self.results.add(name, split, self._scores(params, batches, f"{name} on {split}"))
        self.results.write()

    def _scores(self, params: ParamDict, batches: Batches, title: str) -> Scores:
        return score_split(self.model, params, batches, self.mesh, self.results.groups, title=title)

    def _keep(self, name: str, params: ParamDict, linear: LinearSide | None) -> None:
        """Makes a model the one that predicts: writes the model folder, over that of an earlier stage."""
        self.results.keep(name)
        uses_linear = "fusion" in params or self.config.candidates == "linear"
        corpus, params = self.corpus, without_padding(sharding.to_host(params), self.model)
        trained = model_folder.TrainedModel(
            config=self.config,
            words=corpus.words,
            tokenizer=corpus.tokenizer,
            architecture=self.initial_encoder.shape.architecture,
            labels=self._labels,
            label_counts=corpus.published_counts[: corpus.num_labels],
            num_documents=corpus.published_documents,
            threshold=self.results.threshold(name),
            params={name: value for name, value in params.items() if name != "fusion"},
            linear=linear.model if linear and uses_linear else None,
            fusion=params.get("fusion"),
        )
        if processes.is_first():
            model_folder.write(self.folder.path, trained)


def make_mesh(config: Config) -> Mesh:
    """Returns the mesh that the settings describe, of all devices of the job."""
    return sharding.make_mesh(labels=1 if config.devices.labels == "auto" else config.devices.labels)
