"""The same versions in several processes: one of them looks at the folders, the others do what it says.

The leader decides which versions are loaded and has every replica load them; when all have, or one cannot,
it tells all of them the new state, and goes on only when each has taken it up. So a version is asked of all
replicas or of none, but for the moment in which that state is on its way, and an old one is dropped when
nobody can ask for it any more.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.models.config_file import ModelConfig
from serving.models.loader import Loader, Loading, Model, State, Version, WarmUp, settle_memory
from serving.models.servable import Servable
from serving.protocol.errors import Code, ServingError
from serving.protocol.signatures import Signature

# Called with the name of a method of Replica and its arguments: calls it in every replica, waits for all,
# and raises ServingError when one fails.
Everywhere = Callable[..., None]
_tokens = itertools.count()


@dataclass(frozen=True)
class VersionView:
    """A version as the replicas are told of it."""

    folder: Path
    state: State
    error: tuple[Code, str] | None
    token: int | None  # of the loaded model, which every replica has under this number


@dataclass(frozen=True)
class ModelView:
    """A model as the replicas are told of it."""

    config: ModelConfig
    first_versions_tried: bool
    versions: dict[int, VersionView]


class _LoadedEverywhere(Servable):
    """A version that the replicas have loaded, and this process has not."""

    def __init__(self, name: str, version: int, folder: Path, everywhere: Everywhere) -> None:
        self.token = next(_tokens)
        self._everywhere = everywhere
        super().__init__(name, version, folder)

    def _independent(self) -> frozenset[str]:
        return frozenset()

    def _open(self, op_threads: int) -> dict[str, Signature]:
        del op_threads  # the replicas know
        try:
            self._everywhere("load", self.token, self.name, self.version, self.folder)
        except ServingError:
            self._close()
            raise
        return {}

    def _close(self) -> None:
        self._everywhere("drop", self.token)


class Leader(Loader):
    """The loader that looks at the folders; it loads nothing itself."""

    def __init__(self, configs: Sequence[ModelConfig], loading: Loading, everywhere: Everywhere) -> None:
        """Know the models; nothing is loaded before `start`.

        Args:
            configs: the models.
            loading: how to look for them and load them.
            everywhere: reaches the replicas.
        """
        super().__init__(configs, lambda _: None, loading)
        self._everywhere = everywhere
        self._telling = threading.Lock()

    def configure(self, configs: Sequence[ModelConfig], timeout_s: float) -> None:
        """As Loader.configure; when it returns, every replica serves them."""
        try:
            super().configure(configs, timeout_s)
        finally:
            self._tell()

    def _open(self, name: str, number: int, folder: Path) -> Servable:
        return _LoadedEverywhere(name, number, folder, self._everywhere)

    def _note(self, model: Model, number: int, version: Version) -> None:
        super()._note(model, number, version)
        self._tell()

    def _note_tried(self, model: Model) -> None:
        super()._note_tried(model)
        self._tell()

    def _tell(self) -> None:
        """Have every replica know what is known here, in the order in which it became known."""
        with self._telling:
            with self._lock:
                views = [
                    ModelView(
                        model.config,
                        model.first_versions_tried,
                        {number: _view(version) for number, version in model.versions.items()},
                    )
                    for model in self._models.values()
                ]
            self._everywhere("show", views)


def _view(version: Version) -> VersionView:
    error, servable = version.error, version.servable
    return VersionView(
        version.folder,
        version.state,
        (error.code, error.message) if error is not None else None,
        servable.token if isinstance(servable, _LoadedEverywhere) else None,
    )


class Replica(Loader):
    """A loader that does what a leader says, from another process."""

    def __init__(
        self, configs: Sequence[ModelConfig], warm_up: WarmUp, loading: Loading, forward: Callable[..., Any]
    ) -> None:
        """Know the models' names.

        Args:
            configs: the models.
            warm_up: runs a loaded version's warm-up requests.
            loading: how to load them.
            forward: calls the leader's `configure`.
        """
        super().__init__(configs, warm_up, loading)
        self._loaded: dict[int, Servable] = {}
        self._forward = forward

    def start(self) -> None:
        """Nothing: the leader watches."""

    def close(self) -> None:
        """Let go of every version."""
        for token in list(self._loaded):
            self.drop(token)

    def configure(self, configs: Sequence[ModelConfig], timeout_s: float) -> None:
        """Have the leader serve these models, in every replica."""
        self._forward(configs, timeout_s)

    def load(self, token: int, name: str, number: int, folder: Path) -> None:
        """Load a version and warm it up; it takes requests when `show` says so.

        Raises:
            ServingError: when it cannot be served.
        """
        servable = self._open(name, number, folder)
        try:
            self._warm_up(servable)
        except ServingError:
            servable.retire()
            raise
        self._loaded[token] = servable
        settle_memory()

    def drop(self, token: int) -> None:
        """Let go of a version that `show` names no more."""
        servable = self._loaded.pop(token, None)
        if servable is not None:
            servable.retire()

    def show(self, views: Sequence[ModelView]) -> None:
        """Serve these, in these states, from now on."""
        models = {
            view.config.name: Model(
                view.config,
                {number: self._version(version) for number, version in view.versions.items()},
                view.first_versions_tried,
            )
            for view in views
        }
        with self._changed:
            self._models = models
            self._changed.notify_all()

    def _version(self, view: VersionView) -> Version:
        return Version(
            view.folder,
            view.state,
            ServingError(*view.error) if view.error is not None else None,
            self._loaded.get(view.token) if view.token is not None else None,
        )
