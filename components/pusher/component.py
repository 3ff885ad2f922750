"""Pusher: interface, which is TFX's own."""

from __future__ import annotations

from tfx.components.pusher.component import Pusher as TfxPusher
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec

from components.pusher.executor import Executor


class Pusher(TfxPusher):
    """Pushes a blessed model so that a server sees all of a version or none of it."""

    EXECUTOR_SPEC = ExecutorClassSpec(Executor)
