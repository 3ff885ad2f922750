"""The phases of a training: one, or two where layers of a base are fine-tuned.

As Keras's guide on transfer learning has it: the new layers learn on the features of the frozen base, which
are computed once; after that the last layers of the base are trained along with them, from the images, with
a small learning rate.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from trainer import frozen
from trainer.checkpoints import Store
from trainer.estimator import RunConfig
from trainer.estimator_model import EstimatorModel, Traced
from trainer.fit import Splits, fit, measure
from trainer.networks import NETWORKS
from trainer.recipes import Params
from trainer.user_functions import UserFunctions
from trainer.warm_start import Start

HEAD = "head"  # what belongs to the first of two phases

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phases:
    """What the phases of one training share.

    Attributes:
        functions: make the models.
        traced: what the model function says.
        params: the recipe.
        splits: of images.
        config: of the run.
        strategy: of the devices.
        num_classes: C.
        callbacks: of the user's.
        eval_steps: how many validation batches to read; None or 0: all.
    """

    functions: UserFunctions
    traced: Traced
    params: Params
    splits: Splits
    config: RunConfig
    strategy: tf.distribute.Strategy
    num_classes: int
    callbacks: Sequence[keras.callbacks.Callback] = ()
    eval_steps: int | None = None

    def run(
        self, trained: EstimatorModel, start: Start | None, store: Store, head_store: Store
    ) -> dict[str, Any]:
        """Train to the end, or measure where there is nothing to train.

        Args:
            trained: compiled; its network has the trained weights afterwards.
            start: what to begin with; None: with new weights.
            store: checkpoints of the last phase; where it has one, a first phase is not repeated.
            head_store: checkpoints of the first of two phases.

        Returns:
            As trainer.fit.fit; `head` has that of the first of two phases.

        Raises:
            NonFiniteLossError, ValueError: as trainer.fit.fit.
        """
        params, network = self.params, trained.given_network
        trains = NETWORKS[params.network].trains and not (start and not start.trains)
        if network is None or not frozen.is_frozen(network):
            return self._learn(trained, params, self.splits, start, store, trains)
        if start and not start.goes_on:
            start.apply(trained)
            start = None
        if not params.fine_tune:
            return self._head(network, trained, start, store, self.config, trains)
        first: dict[str, Any] = {}
        if trains and not start and not store.latest():
            _LOG.info("first the new layers, on the features of the base")
            config = dataclasses.replace(self.config, model_dir=f"{self.config.model_dir}/{HEAD}")
            first = {HEAD: self._head(network, trained, None, head_store, config, trains)}
            if config.is_chief:
                head_store.remove()
        _LOG.info("now the last %d layers of the base too, on images", params.fine_tune)
        steps = self._steps(params.fine_tuning, start)
        with self.strategy.scope():
            tuned = self.functions.fine_tuned(network, params, self.num_classes, steps, self.config)
        return self._learn(tuned, params.fine_tuning, self.splits, start, store, trains) | first

    def _head(
        self,
        network: keras.Model,
        trained: EstimatorModel,
        start: Start | None,
        store: Store,
        config: RunConfig,
        trains: bool,
    ) -> dict[str, Any]:
        steps = self._steps(self.params, start)
        with tempfile.TemporaryDirectory() as folder:
            computed = frozen.compute(trained, self.params, self.splits, folder)
            with self.strategy.scope():
                head = self.functions.head(network, self.params, self.num_classes, steps, self.config)
            return self._learn(head, self.params, computed, start, store, trains, config)

    def _learn(
        self,
        model: EstimatorModel,
        params: Params,
        splits: Splits,
        start: Start | None,
        store: Store,
        trains: bool,
        config: RunConfig | None = None,
    ) -> dict[str, Any]:
        if not trains:
            return measure(model, params, splits, start, self.eval_steps, self.callbacks)
        return fit(
            model,
            params,
            splits,
            self._steps(params, start),
            store,
            config or self.config,
            self.eval_steps,
            self.callbacks,
            self.traced.logged,
            summaries=self.functions.own and self.config.is_chief,
            start=start,
        )

    def _steps(self, params: Params, start: Start | None) -> int:
        return params.steps(self.splits.train.size) + (start.step if start else 0)
