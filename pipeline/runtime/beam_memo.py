"""Answers of Beam that it works out again and again while it builds a pipeline, kept after the first time.

Beam asks for the signature of every method of every DoFn several times per step, and builds an argument
parser each time that an option is read. Both answers depend on nothing but what they are asked
about. docs/performance.md has what it saves.

Beam has no public place for this, so it is done with the version that it was tried with and with no other.
"""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import sys
import types
import weakref
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.transforms import core
from apache_beam.typehints import decorators

_Signature = Callable[[Any], inspect.Signature]


TESTED_VERSION = "2.77.0"


@contextmanager
def remembering() -> Iterator[None]:
    """Let Beam remember while this lasts; does nothing with another version of Beam than the tested one."""
    if beam.__version__ != TESTED_VERSION:
        logging.info(
            "Beam %s: nothing is remembered, which is tested with %s", beam.__version__, TESTED_VERSION
        )
        yield
        return
    options = pipeline_options.PipelineOptions
    signature_of, init = decorators.get_signature, options.__init__
    decorators.get_signature = core.get_signature = _remembered_by_function(signature_of)
    options.__init__ = _remembered_by_flags(init)
    try:
        yield
    finally:
        decorators.get_signature = core.get_signature = signature_of
        options.__init__ = init


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
