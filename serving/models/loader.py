"""Version folders, watched: what is on disk becomes what is served, without a gap.

A new version is loaded and warmed up before an old one goes. A version that cannot be loaded is kept in
view with its error, tried again when its files change, and never costs the version that serves.
"""

from __future__ import annotations

import enum
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from serving.models.config_file import ModelConfig
from serving.models.folders import TFLITE_FILE, VERSION, hint, is_version
from serving.models.object_store import Mirror, StoreFolder
from serving.models.servable import TAGS, Servable
from serving.models.tflite import TfLiteServable
from serving.protocol.errors import Code, ServingError, invalid

log = logging.getLogger(__name__)

# How often the folders are looked at, as TF Serving does.
POLL_S = 1.0

# Called with a loaded servable before it takes requests; raises ServingError to refuse it.
WarmUp = Callable[[Servable], None]


class State(enum.IntEnum):
    """ModelVersionStatus.State of TF Serving."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass
class Version:
    """What is known of one version of a model."""

    folder: Path
    state: State = State.START
    error: ServingError | None = None
    servable: Servable | None = None
    # What the folder looked like when loading began: a failed version is tried again when this changes.
    stamp: tuple = ()
    failures: int = 0  # in a row, with these files
    failed_at: float = 0.0  # by time.monotonic()


@dataclass
class Model:
    """A model and its versions."""

    config: ModelConfig
    versions: dict[int, Version] = field(default_factory=dict)
    first_versions_tried: bool = (
        False  # each version that was there at the beginning is loaded, or cannot be
    )

    @property
    def failed(self) -> bool:
        """Whether a version could not be loaded."""
        return any(version.error is not None for version in self.versions.values())

    @property
    def available(self) -> list[int]:
        """The versions that answer, newest first."""
        ready = (number for number, version in self.versions.items() if version.state is State.AVAILABLE)
        return sorted(ready, reverse=True)


@dataclass(frozen=True)
class Loading:
    """How models are looked for and loaded; defaults are TF Serving's, but for the threads."""

    poll_s: float = POLL_S  # between two looks at the folders; 0: only one
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)  # models that are loaded at a time
    max_retries: int = 5  # of a version that cannot be loaded, as long as its files stay the same
    retry_s: float = 60.0
    op_threads: int = 1  # of each model, see Servable
    tags: tuple[str, ...] = TAGS  # of the meta graph
    prefer_tflite: bool = False  # a version with a model.tflite is served by its interpreter
    tflite_interpreters: int = 1  # of each such version: requests that run at a time
    allow_early_labels: bool = False  # labels may name versions that do not answer yet


@dataclass(frozen=True)
class VersionStatus:
    """One line of a model's status."""

    version: int
    state: State
    error: ServingError | None


class Loader:
    """All models of a server, and the thread that watches their folders."""

    def __init__(
        self, configs: Sequence[ModelConfig], warm_up: WarmUp, loading: Loading | None = None
    ) -> None:
        """Know the models; nothing is loaded before `start`.

        Args:
            configs: the models.
            warm_up: runs a loaded version's warm-up requests.
            loading: how to look for them and load them.
        """
        self._warm_up = warm_up
        self._loading = loading or Loading()
        self._lock = threading.Lock()  # guards the tables below; never held while a model is loaded
        self._changed = threading.Condition(self._lock)
        self._models = {config.name: Model(config) for config in configs}
        self._waiting: set[str] = set()  # models of which there is no version yet
        self._mirrors: dict[StoreFolder, Mirror] = {}  # of models in object stores
        self._told: dict[str, str] = {}  # by model, what was said last of a store that cannot be read
        self._busy = 0  # models that are looked at right now
        self._memory_changed = False
        self._stop = threading.Event()
        self._nudge = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="loader", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching and let go of every version."""
        self._stop.set()
        self._nudge.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            servables = [
                version.servable for model in self._models.values() for version in model.versions.values()
            ]
        for servable in servables:
            if servable is not None:
                servable.retire()
        for mirror in self._mirrors.values():
            mirror.close()

    def configure(self, configs: Sequence[ModelConfig], timeout_s: float) -> None:
        """Serve these models from now on, and wait until the new ones answer.

        Args:
            configs: all models; those that are not named are unloaded.
            timeout_s: how long to wait for new models.

        Raises:
            ServingError: FAILED_PRECONDITION when a label names a version that does not answer,
                UNKNOWN when a model does not become available; what is served already stays.
        """
        with self._lock:
            self._check_labels(configs)
            models = {}
            for config in configs:
                model = self._models.get(config.name) or Model(config)
                models[config.name] = Model(config, model.versions, model.first_versions_tried)
            dropped = [model for name, model in self._models.items() if name not in models]
            self._models = models
        for model in dropped:
            for number, version in list(model.versions.items()):
                self._unload(model, number, version)
        self._nudge.set()
        self._await([config.name for config in configs], timeout_s)

    def wait_until_ready(self, timeout_s: float | None = None) -> bool:
        """Wait until it is `ready`; False when time ran out first."""
        with self._changed:
            return self._changed.wait_for(self._is_ready, timeout_s)

    def _is_ready(self) -> bool:
        models = self._models.values()
        answering = [model for model in models if model.available]
        return all(model.first_versions_tried for model in models) and (bool(answering) or not self._models)

    @property
    def names(self) -> list[str]:
        """The models that are configured."""
        with self._lock:
            return list(self._models)

    @property
    def ready(self) -> bool:
        """Whether every model has a version that answers, or one that cannot be loaded, and one answers.

        A model that does not load does not keep the others from being asked.
        """
        with self._lock:
            return self._is_ready()

    def knows(self, name: str) -> bool:
        """Whether there is such a model."""
        with self._lock:
            return name in self._models

    @contextmanager
    def use(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """A version to ask, held open as long as the block lasts.

        Args:
            name: the model.
            version: a certain version.
            label: a certain version, by its label.

        Raises:
            ServingError: NOT_FOUND or INVALID_ARGUMENT, in TF Serving's words.
        """
        servable = self._acquire(name, version, label)
        try:
            yield servable
        finally:
            servable.release()

    def _acquire(self, name: str, version: int | None, label: str | None) -> Servable:
        if not name:
            raise invalid("ModelSpec has no name specified.")
        with self._lock:
            model = self._models.get(name)
            if label is not None:
                if model is None or label not in model.config.labels:
                    raise invalid(f"Unrecognized servable version label: {label}")
                version = model.config.labels[label]
            for number in model.available if model else ():
                if version is None or version == number:
                    servable = model.versions[number].servable if model else None
                    # Between two looks of the watcher: a state says AVAILABLE as long as it can be
                    # acquired.
                    if servable is not None and servable.acquire():
                        return servable
        wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")

    def status(self, name: str, version: int | None) -> list[VersionStatus]:
        """What is known of a model's versions, newest first.

        Raises:
            ServingError: NOT_FOUND, in TF Serving's words.
        """
        with self._lock:
            model = self._models.get(name)
            found = {
                number: VersionStatus(number, each.state, each.error)
                for number, each in (model.versions.items() if model else ())
            }
        if version is not None and version not in found:
            raise ServingError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
        if not found:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return [found[number] for number in sorted(found, reverse=True) if version in (None, number)]

    def _check_labels(self, configs: Sequence[ModelConfig]) -> None:
        for config in configs:
            model = self._models.get(config.name)
            for label, version in config.labels.items():
                is_new = model is None or label not in model.config.labels
                if self._loading.allow_early_labels and is_new:
                    continue
                if model is None or version not in model.available:
                    raise ServingError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {config.name}, "
                        "which is not currently available for inference",
                    )

    def _await(self, names: Sequence[str], timeout_s: float) -> None:
        def available_or_failed() -> bool:
            return all(
                self._models[name].available
                or any(version.error is not None for version in self._models[name].versions.values())
                for name in names
                if name in self._models
            )

        with self._changed:
            self._changed.wait_for(available_or_failed, timeout_s)
            missing = [
                self._models[name]
                for name in names
                if name in self._models and not self._models[name].available
            ]
        if missing:
            details = ""
            for model in missing:
                newest = max(model.versions, default=None)
                error = model.versions[newest].error if newest is not None else None
                reason = f" due to error: {error}" if error else ""
                details += f"{{{{name: {model.config.name} version: {newest}}}{reason}}}, "
            raise ServingError(
                Code.UNKNOWN, f"{len(missing)} model(s) did not become available: {{{details}}}"
            )

    def _watch(self) -> None:
        looks: dict[str, Future[None]] = {}
        with ThreadPoolExecutor(self._loading.threads, "load") as threads:
            while not self._stop.is_set():
                with self._lock:
                    models = list(self._models.values())
                pause_s = self._loading.poll_s or None
                for model in models:
                    last = looks.get(model.config.name)
                    if last is None or last.done():
                        looks[model.config.name] = threads.submit(self._look_at, model)
                    else:  # soon again, for its configuration may have changed meanwhile
                        pause_s = POLL_S
                self._nudge.wait(pause_s)
                self._nudge.clear()

    def _look_at(self, model: Model) -> None:
        with self._lock:
            self._busy += 1
        try:
            if not self._stop.is_set() and self._is_current(model):
                self._refresh(model)
        except Exception:  # the watcher outlives whatever a file system does
            log.exception("%s: cannot look at %s", model.config.name, model.config.base_path)
        finally:
            with self._lock:
                self._busy -= 1
                settle = self._memory_changed and not self._busy
                self._memory_changed = self._memory_changed and not settle
            if settle:
                settle_memory()

    def _refresh(self, model: Model) -> None:
        """Make what is served what is on disk, for one model."""
        name = model.config.name
        waiting = self._waiting
        place = model.config.base_path
        folder = self._mirrored(model, place) if isinstance(place, StoreFolder) else place
        if folder is None:
            return
        found = find_versions(folder)
        if not found and name not in waiting:
            waiting.add(name)
            advice = hint(place) if isinstance(place, Path) else ""
            log.warning("%s: no version in %s yet; waiting for one%s", name, place, advice)
        if found is None:  # the folder is away: an unmounted volume must not end the service
            return
        if found:
            waiting.discard(name)
        wanted = model.config.policy.choose(found)
        for number in sorted(wanted, reverse=True):
            if self._stop.is_set() or not self._is_current(model):
                return
            self._load_if_new(model, number, found[number])
        if wanted and not model.first_versions_tried:
            self._note_tried(model)
        # As long as nothing that is wanted answers, what answers now goes on.
        if wanted and not wanted & set(model.available):
            return
        for number, version in list(model.versions.items()):
            if number not in wanted:
                self._unload(model, number, version)

    def _mirrored(self, model: Model, place: StoreFolder) -> Path | None:
        """The folder with the copies of a model's versions; None when the store cannot be read."""
        name = model.config.name
        try:
            mirror = self._mirrors.get(place) or self._mirrors.setdefault(place, Mirror(place))
            mirror.update(model.config.policy.choose, model.available)
        except OSError as error:  # as with a folder that is away, what serves goes on
            reason = " ".join(str(error).split())
            if self._told.get(name) != reason:
                self._told[name] = reason
                log.error("%s: %s cannot be read: %s", name, place, reason)
            return None
        self._told.pop(name, None)
        return mirror.folder

    def _is_current(self, model: Model) -> bool:
        """Whether the model is still configured."""
        with self._lock:
            now = self._models.get(model.config.name)
            return now is not None and now.versions is model.versions

    def _load_if_new(self, model: Model, number: int, folder: Path) -> None:
        known = model.versions.get(number)
        if known is not None and known.state is State.AVAILABLE:
            return
        stamp = _stamp(folder)
        failures = 0
        if known is not None and known.stamp == stamp:
            failures = known.failures
            is_due = time.monotonic() >= known.failed_at + self._loading.retry_s
            if not failures or failures > self._loading.max_retries or not is_due:
                return
        version = Version(folder, State.LOADING, stamp=stamp)
        self._note(model, number, version)
        name = model.config.name
        start = time.monotonic()
        log.info("%s: loading version %d from %s", name, number, folder)
        servable = None
        try:
            servable = self._open(name, number, folder)
            self._warm_up(servable)
        except ServingError as error:
            if servable is not None:
                servable.retire()
            log.error("%s: version %d cannot be served: %s", name, number, error)
            failed = Version(folder, State.END, error, None, stamp, failures + 1, time.monotonic())
            self._note(model, number, failed)
            return
        if not self._is_current(model):
            servable.retire()
            return
        self._note(model, number, Version(folder, State.AVAILABLE, servable=servable, stamp=stamp))
        log.info("%s: version %d is available after %.1f s", name, number, time.monotonic() - start)

    def _open(self, name: str, number: int, folder: Path) -> Servable:
        loading = self._loading
        if loading.prefer_tflite and (folder / TFLITE_FILE).is_file():
            return TfLiteServable(name, number, folder, loading.op_threads, loading.tflite_interpreters)
        return Servable(name, number, folder, loading.op_threads, loading.tags)

    def _unload(self, model: Model, number: int, version: Version) -> None:
        if version.servable is None:
            # Like TF Serving, a status tells what became of a version, as long as its folder is there.
            if not version.folder.exists():
                with self._changed:
                    model.versions.pop(number, None)
            return
        self._note(model, number, Version(version.folder, State.UNLOADING, servable=version.servable))
        version.servable.retire()
        self._note(model, number, Version(version.folder, State.END))
        version.servable = None
        with self._lock:
            self._memory_changed = True
        log.info("%s: version %d is unloaded", model.config.name, number)

    def _note_tried(self, model: Model) -> None:
        with self._changed:
            model.first_versions_tried = True
            self._changed.notify_all()

    def _note(self, model: Model, number: int, version: Version) -> None:
        with self._changed:
            model.versions[number] = version
            self._memory_changed = True
            self._changed.notify_all()


def find_versions(base_path: Path) -> dict[int, Path] | None:
    """The version folders of a model that hold a model; None when the base folder cannot be read.

    `00000123` is version 123; anything that is no number is left alone, and so is a folder without the
    model's file: a copy of a model may make the folder long before it is complete.
    """
    try:
        folders = [folder for folder in base_path.iterdir() if VERSION.fullmatch(folder.name)]
    except OSError:
        return None
    return {int(folder.name): folder for folder in sorted(folders) if is_version(folder)}


def settle_memory() -> None:
    """Free what a model left behind, and keep the collector from walking over what stays.

    Without it the collector goes through TensorFlow's objects again and again, 190 ms at a time. Thawing
    first matters: graphs hold cycles, and a frozen cycle is never freed.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _stamp(folder: Path) -> tuple:
    """What the files of a folder look like from outside: names, sizes and times."""
    entries = []
    for path in sorted(folder.rglob("*")):
        try:
            stat = path.stat()
        except FileNotFoundError:  # being copied or removed right now
            continue
        entries.append((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return tuple(entries)
