"""Everything round a plain training loop: optimizers, the log, checkpoints, signals, scores.

The `for` stays in the paper's trainer:

    with Run(args, total, networks={"generator": G}, updates={"g": update_G}) as run:
        batches = run.batches(data)
        for iteration in run:                            # from the checkpoint's iteration on
            run.log(self.train_step(iteration, batches))
            if run.due(args.sample_every, last=True):
                run.picture("samples", self.sample_grid())
            if run.due(args.eval_every):
                run.score(self.fakes())
    return run.exit_code
"""

import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from shared_metrics import data_check, files, process, weights
from shared_metrics.errors import UserError
from shared_metrics.images import save_png
from shared_metrics.interrupts import Stopped
from shared_metrics.runs import checkpoint, entries, peers
from shared_metrics.runs.epochs import Epochs
from shared_metrics.runs.evaluation import Evaluation, open_networks
from shared_metrics.runs.folder import begins_anew, logs, run_folder
from shared_metrics.runs.loader import Batches
from shared_metrics.runs.log import Means, RunLog
from shared_metrics.runs.stop import NotFinite, StopSignals, check_finite, weight_sums


class Run:
    """One run in one folder, from its first iteration or a checkpoint's to the last or a signal.

    Args:
        args: the flags that every run has (`flags.run_flags`), --batch_size, --num_workers, ...
        total: iterations in all, or a function that tells them once a checkpoint is read.
        networks: {name in the checkpoint: Layer or None}, averaged generators among them.
        updates: {"g": Update, "d": Update}: "optimizer_g", "scaler_g", ... in the checkpoint.
        about: plain values that a checkpoint holds besides: "architecture", "classes", ...
        extras: {name in the checkpoint: object with state() and load(state)}, such as image pools.
        check: function (state, source) that raises UserError where a checkpoint does not belong to
            these networks or this data.
        begin: (source, state) of a foreign checkpoint to go on from; it may lack optimizers.
        real: data set whose pictures the scores of --eval_every compare with, see `Evaluation`.
        eval_samples: generated images an evaluation, if not --eval_samples.
        epochs: `Epochs` of the data, or a list of those of several data sets: the first tells what
            is due by epochs; save_epochs: epochs between checkpoints where --save_every is 0.
        images: images that an iteration trains on, over all processes (default: one batch each).
        checkpoints, visualdl: folders, if not <output_dir>/checkpoints and <output_dir>/log;
            folders: {flag: folder} of all that it writes elsewhere, these among them.
        notes: lines for the head of the log.
    Attributes: iteration, how many are done; exit_code, 0 or 128 + the signal that ended the run;
        is_main, whether this process writes.
    """

    def __init__(
        self,
        args,
        total,
        networks,
        updates,
        about=None,
        *,
        extras=None,
        check=None,
        begin=None,
        real=None,
        eval_samples=None,
        epochs=(),
        save_epochs=0,
        images=None,
        checkpoints=None,
        visualdl=None,
        folders=None,
        notes=(),
    ):
        self.args = args
        self.total = total
        self.networks = {name: net for name, net in networks.items() if net is not None}
        self.updates = updates
        self.about = about or {}
        self.extras = extras or {}
        self.check = check
        self.begin = begin
        self.real = real
        self.eval_samples = eval_samples or args.eval_samples
        self.epochs = [epochs] if isinstance(epochs, Epochs) else list(epochs)
        self.save_epochs = save_epochs
        self.images = images or args.batch_size * process.world_size()
        self.folder = Path(args.output_dir)
        self.checkpoints = Path(checkpoints or self.folder / "checkpoints")
        self.visualdl = visualdl
        self.folders = folders
        self.notes = list(notes)
        self.iteration = 0
        self.best = {}
        self.exit_code = 0
        self.is_main = process.is_main()
        self._latest = None  # the newest good checkpoint, for the message of the NaN guard
        self._log = None
        self._means = Means()
        self._loaders = []
        self._begun_at = 0  # the iteration from which this process trains
        self._between = True  # whether the networks are as the last whole step left them
        self._stop = 0  # the signal that asked to end
        self._waited = 0.0  # seconds for data since the last row
        self._row_at = None  # the iterations at which the last row and save were made
        self._saved_at = None
        self._waiting = True  # whether rank 0 works alone now, while the others wait for it

    # ---- beginning and end

    def __enter__(self):
        # Should a line here fail, what the lines before it opened is closed again.
        with ExitStack() as stack:
            stack.enter_context(peers.Watch(self._tell))
            checkpoint_to_load = stack.enter_context(
                run_folder(self.args, self.checkpoints, self.folders)
            )
            if self.begin:
                self._load(*self.begin, whole=False)
            elif checkpoint_to_load:
                self._load(*checkpoint_to_load)
            elif self.args.resume:
                self.notes.append(begins_anew(self.args, self.checkpoints))
            self._begun_at = self.iteration
            if callable(self.total):
                self.total = self.total()
            # Averaged generators belong to no Update, which makes its own networks alike.
            process.broadcast_layers(*self.networks.values())
            if self.is_main and not any(path.exists() for path in logs(self.folder)):
                stack.callback(self._drop_log)
            self._signals = stack.enter_context(StopSignals())
            self._log = stack.enter_context(closing(self._open_log()))
            if self.is_main:
                self._signals.interrupt()
            for note in filter(None, self.notes):
                self._log.info(note)
            self._log.info(self._length())
            if self.iteration >= self.total:
                self._log.info(f"iteration {self.iteration} is done already: raise the length")
            if self.is_main:
                files.save_json(vars(self.args), self.folder / "args.json")
            if self.args.eval_every and self.is_main:
                self._evaluation = self._open_evaluation()
            self._stack = stack.pop_all()  # stays open until __exit__
        return self

    def __exit__(self, kind, error, trace):
        with self._stack:
            if isinstance(error, Stopped):  # in what rank 0 does between two steps
                self._ends_here()
                return True
            whole = self._between and isinstance(error, Exception)
            if whole and not isinstance(error, NotFinite) and self._saved_at != self.iteration:
                self._save_despite()
            if error is not None:
                raise error  # seen by what the stack closes
        return False

    def _save_despite(self):
        """Save what is trained before an error ends the run."""
        if self.is_main and self.iteration > self._begun_at:
            with suppress(UserError, OSError):  # a full disk may be what ends it
                self.save()
                self._log.info(f"an error ends the run: iteration {self.iteration} is saved first")

    def _drop_log(self):
        """A run that trained nothing leaves no log: it is no run that a next one would mix with."""
        text, rows = logs(self.folder)
        if not rows.exists():
            text.unlink(missing_ok=True)

    def _tell(self, line):
        if self._log:
            self._log.info(line)

    def _length(self):
        line = f"{self.total:,} iterations of {self.images:,} images"
        if self.epochs and self.epochs[0].per_iteration == 1:
            line += f", {self.epochs[0].per_epoch:,} an epoch"
        return line

    def _open_log(self):
        return RunLog(
            self.folder,
            self.total,
            start=self.iteration,
            resume=self.iteration > 0 or bool(self.args.resume),
            enabled=self.is_main,
            visualdl=self.visualdl,
        )

    def _open_evaluation(self):
        args = self.args
        networks, note = open_networks(args.inception_weights, args.efficientnet_weights)
        if note:
            self._log.info(note)
        return Evaluation(
            self.folder,
            args.real_stats,
            networks,
            self.eval_samples,
            data=self.real,
            skip_bad=args.skip_bad_images,
            log=self._log,
            resumed=self.iteration > 0,
        )

    def batches(self, data, epochs=None, shuffle=True):
        """This process's batches of a data set, from the iteration on at which the run is.

        Args: epochs, its `Epochs`, if not the first of the run's; shuffle, see `loader.Batches`.
        """
        args = self.args
        epochs = epochs or self.epochs[0]
        peers.check_same_data(data)
        for line in data_check.notes(data) if self.is_main else ():
            self._log.info(line)
        loader = Batches(
            data,
            args.batch_size,
            args.seed,
            start=self.iteration * epochs.per_iteration,
            rank=process.rank(),
            world=process.world_size(),
            workers=args.num_workers,
            shuffle=shuffle,
            drop_last=epochs.drop_last,
            skip_bad=args.skip_bad_images,
            epochs=epochs,
        )
        self._loaders.append(self._stack.enter_context(loader))
        return loader

    # ---- the loop

    def __iter__(self):
        """The iterations that are left, counted from 0.

        Raises: UserError when the batches of the first cannot be had.
        """
        if self._ends_here():
            return
        error = self._look_ahead()
        if error:
            raise error
        for iteration in range(self.iteration, self.total):
            self._between = False
            yield iteration
            if self._ends_here():
                return

    def log(self, losses):
        """Count the iteration that has just been trained; a row, a checkpoint when they are due.

        Args: losses, {name: 0-d tensor}; a row holds their means since the last row.
        Raises: NotFinite when a mean or a weight is NaN or infinite; what the data raise where the
            next batches cannot be had, on any process: this iteration is saved first.
        """
        self.iteration += 1
        self._between = True
        self._means.add(losses)
        # BatchNorm's running statistics: each process has seen its own batches. At every step, so
        # that it matters to none after which of them a run was stopped.
        for network in self.networks.values():
            process.average_buffers(network)
        error = self._look_ahead()
        last = self._stop or error or self.iteration == self.total
        save = last or self._is_due(self.args.save_every, self.save_epochs)
        if save or self.iteration % self.args.log_every == 0:
            self._write_row()
        if save:
            self.save()
        if error:
            self._log.info(f"an error ends the run: iteration {self.iteration} is saved first")
            raise error

    def _look_ahead(self):
        """Fetch the next step's batches, while the networks are whole; hear of signals, and of
        errors, on any process. Returns: the error, or None.
        """
        error = None
        if self.iteration < self.total:
            begun = time.monotonic()
            errors = [loader.fetch() for loader in self._loaders]
            self._waited += time.monotonic() - begun
            error = next(filter(None, errors), None)
        if not self.is_main:  # at once, so that rank 0 knows when it writes its row
            self._tell_skipped()
        self._stop = self._signals.requested(failed=error is not None)
        failed = self._signals.failed
        if failed is None:
            return None
        text = peers.share(str(error), source=failed)
        return error if failed == process.rank() else UserError(f"rank {failed}: {text}")

    def _ends_here(self):
        """Whether a signal ends the run between these two steps; the same on all processes."""
        self._signals.interrupting = False
        if self._waiting:
            process.wait_for_all()
            self._waiting = False
            self._stop = self._stop or self._signals.requested()
        if not self._stop:
            return False
        where = "before the first iteration"
        if self.iteration > self._begun_at:
            self.save()
            where = f"after iteration {self.iteration}, saved {self._latest}"
        self._log.info(f"stopped {where}; go on with --resume")
        self.exit_code = 128 + self._stop
        return True

    def due(self, every, epochs=0, last=False):
        """Whether now is the time for what is done every so many iterations.

        All processes ask, rank 0 alone is told yes: it draws and writes while the others wait.
        Args: every, in iterations; 0: after the epochs 0, `epochs`, 2 `epochs`, ... (with `epochs`
            0 as well: never); last, also after the last iteration.
        """
        due = self._is_due(every, epochs) or (last and self.iteration == self.total)
        if due:
            self._write_row()
            self._waiting = True
            if self.is_main:
                self._signals.interrupt()
        return due and self.is_main

    def _is_due(self, every, epochs):
        if every:
            return self.iteration % every == 0
        if not epochs:
            return False
        done = self.epochs[0].done(self.iteration)
        ended = done > self.epochs[0].done(self.iteration - 1)
        return ended and (done - 1) % epochs == 0

    def _write_row(self):
        if self._row_at == self.iteration:
            return
        self._row_at = self.iteration
        images = self._means.steps * self.images
        values = self._means.take()
        # A loss may look well when a network is lost, so the weights are looked at too.
        sums = weight_sums(**{name.upper(): u.parameters for name, u in self.updates.items()})
        check_finite(values | sums, self.iteration, self._latest)
        self._log.row(self.iteration, values, images=images, waited=self._waited)
        self._waited = 0.0
        self._tell_skipped()

    def _tell_skipped(self):
        for loader in self._loaders:
            self._log.skipped(loader.skipped)

    def values(self, values):
        """Log further numbers of this iteration, {name: float}, as a row of their own."""
        self._log.row(self.iteration, values, group="score")

    def picture(self, name, picture, folder=None):
        """Write uint8 (H, W, 3) as <output_dir>/NAME/iter_*.png, and show it in VisualDL.

        folder: another place than <output_dir>/NAME.
        """
        folder = Path(folder or self.folder / name)
        folder.mkdir(parents=True, exist_ok=True)
        save_png(picture, folder / f"iter_{self.iteration:07d}.png")
        self.show(name, picture)

    def show(self, name, picture):
        """Show uint8 (H, W, 3) in VisualDL."""
        self._log.image(name, picture, self.iteration)

    def score(self, images):
        """Score generated images, keep the best of each score as a checkpoint.

        Args: images, iterable of uint8 batches (n, H, W, 3), `eval_samples` in all.
        """
        self.save()  # what is trained is safe, whatever happens while scores are taken
        own = set(self.best)
        values, improved = self._evaluation.score(images, self.iteration, self.best)
        self.values(values)
        for name in improved:
            if name not in own:
                checkpoint.set_aside(checkpoint.best_path(self.checkpoints, name))
            checkpoint.save_best(self.checkpoints, name, self.state())
        self._saved_at = None
        self.save()  # once more, with the best scores so far

    # ---- checkpoints

    def save(self):
        """Save checkpoints/iter_*.pdparams; nothing where this iteration's is there already."""
        self._waiting = True
        if not self.is_main or self._saved_at == self.iteration:
            return
        self._latest = checkpoint.save_checkpoint(
            self.checkpoints, self.iteration, self.state(), keep=self.args.keep_checkpoints
        )
        self._saved_at = self.iteration

    def state(self):
        """Everything that a run needs to go on: the dict that a checkpoint holds."""
        state = {name: checkpoint.network_state(net) for name, net in self.networks.items()}
        for name, update in self.updates.items():
            optimizer = checkpoint.optimizer_state(update.optimizer, update.networks)
            state[f"optimizer_{name}"] = optimizer
            state[f"scaler_{name}"] = update.scaler.state_dict()
        for name, extra in self.extras.items():
            state[name] = extra.state()
        state |= {"iteration": self.iteration, "best": self.best, "args": vars(self.args)}
        state["epochs"] = [epochs.state(self.iteration) for epochs in self.epochs]
        return state | self.about

    def _load(self, source, state, whole=True):
        parts = [*self.networks, *self.extras, "best"]
        for name in self.updates:
            parts += [f"optimizer_{name}", f"scaler_{name}"]
        missing = [name for name in parts if name not in state and _weights_of(name, state) is None]
        if missing and whole:
            raise UserError(
                f"{source}: not a checkpoint of this training, it has no {', '.join(missing)}"
            )
        if "paper" in self.about:
            entries.check_paper(state, self.about["paper"], source)
        if self.check:
            self.check(state, source)
        for name, network in self.networks.items():
            values = _weights_of(name, state)
            if values is not None:
                weights.load_into(network, values, what=name, source=source)
        for name, update in self.updates.items():
            if f"optimizer_{name}" in state:
                update.load(state[f"optimizer_{name}"], state.get(f"scaler_{name}"), source)
        for name, extra in self.extras.items():
            if name in state:
                extra.load(state[name])
        self.iteration = state["iteration"]
        self.best = state.get("best", {})
        # A checkpoint of before they were counted tells none: the sizes count as unchanged.
        for epochs, before in zip(self.epochs, state.get("epochs", ()), strict=False):
            self.notes.append(epochs.go_on(self.iteration, before, source))
        self._latest = source


def start_from(networks, state, source):
    """Put the weights of a file into the networks that a new run begins with.

    Args: networks, {name: Layer or None}; an averaged generator ("generator_ema") that the file
        does not hold begins as the generator; state, {name: {entry: array}}, see convert.py.
    Returns: one line on each network that the file does not hold.
    Raises: UserError when an entry is missing, unexpected or of another shape.
    """
    notes = []
    for name, network in networks.items():
        if network is None:
            continue
        values = _weights_of(name, state)
        if values is not None:
            weights.load_into(network, values, what=name, source=source)
        elif not name.endswith("_ema"):
            notes.append(f"{source}: holds no {name}; it starts from its initial weights")
    return notes


def _weights_of(name, state):
    """The weights that a network begins with; None where the state holds none.

    An averaged generator ("generator_ema") that was not averaged before begins as the generator.
    """
    return state.get(name, state.get(name.removesuffix("_ema")) if name.endswith("_ema") else None)
