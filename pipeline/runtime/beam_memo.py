"""Answers of Beam that it works out again and again while it builds a pipeline, kept after the first time.

Beam asks for the signature of every method of every DoFn several times per step, and builds an argument
parser each time that somebody looks at an option. For the small pipelines inside TFX's nodes that is a
fifth of the time. Both answers depend on nothing but what they are asked about.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import types
import weakref
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

from apache_beam.options import pipeline_options
from apache_beam.transforms import core
from apache_beam.typehints import decorators

_Signature = Callable[[Any], inspect.Signature]


@functools.cache
def install() -> None:
    """Make Beam remember, from now on and in this process."""
    remembered = _remembered_by_function(decorators.get_signature)
    decorators.get_signature = core.get_signature = remembered
    options = pipeline_options.PipelineOptions
    options.__init__ = _remembered_by_flags(options.__init__)


def _remembered_by_function(get_signature: _Signature) -> _Signature:
    of_function: weakref.WeakKeyDictionary[Any, inspect.Signature] = weakref.WeakKeyDictionary()
    of_method: weakref.WeakKeyDictionary[Any, inspect.Signature] = weakref.WeakKeyDictionary()

    def remembered(func: Any) -> inspect.Signature:
        if type(func) is types.MethodType and type(func.__func__) is types.FunctionType:
            known, key = of_method, func.__func__
        elif type(func) is types.FunctionType:
            known, key = of_function, func
        else:
            return get_signature(func)
        signature = known.get(key)
        if signature is None:
            known[key] = signature = get_signature(func)
        return signature

    return remembered


def _remembered_by_flags(init: Callable[..., None]) -> Callable[..., None]:
    parsed: dict[tuple[type, tuple[str, ...]], Namespace] = {}

    @functools.wraps(init)
    def remembered(
        self: pipeline_options.PipelineOptions, flags: Sequence[str] | None = None, **overrides: Any
    ) -> None:
        # Without flags argparse reads those of the process.
        key = type(self), tuple(sys.argv[1:] if flags is None else flags)
        if key in parsed:
            # Values may be lists, which belong to one object alone.
            self._flags, self._visible_options = flags, copy.deepcopy(parsed[key])
            self._all_options = vars(copy.deepcopy(parsed[key])) | overrides
        else:
            init(self, flags, **overrides)
            parsed[key] = copy.deepcopy(self._visible_options)

    return remembered
