"""What Beam remembers is what it would find out anew."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DebugOptions, PipelineOptions, StandardOptions
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms import core, userstate
from apache_beam.typehints import decorators

from pipeline.local import runner
from pipeline.runtime import beam_memo


@pytest.fixture
def _remembering() -> Iterator[None]:
    with runner.beam_in_this_process():
        yield


class Numbered(beam.DoFn):
    """Has a parameter whose default says that it wants state."""

    COUNT = beam.DoFn.StateParam(userstate.CombiningValueStateSpec("count", sum))

    def process(self, element, state=COUNT):
        """Number the elements of a key."""
        state.add(1)
        yield element[0], state.read()


def patched() -> tuple:
    return (
        PipelineOptions.__init__,
        core.get_signature,
        decorators.get_signature,
        StandardOptions.DEFAULT_RUNNER,
    )


def test_beam_is_as_it_was_afterwards() -> None:
    before = patched()

    with runner.beam_in_this_process():
        assert all(now is not then for now, then in zip(patched(), before, strict=True))

    assert patched() == before


def test_another_version_of_beam_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = patched()
    monkeypatch.setattr(beam, "__version__", "2.99.0")

    with beam_memo.remembering():
        assert patched() == before


def test_the_tested_version_is_the_installed_one() -> None:
    assert beam.__version__ == beam_memo.TESTED_VERSION


@pytest.mark.usefixtures("_remembering")
def test_signatures_are_those_of_inspect() -> None:
    for callable_ in (Numbered.process, Numbered().process, Numbered, len, lambda a, *, b=2: a + b):
        for _ in range(2):
            signature = decorators.get_signature(callable_)
            assert list(signature.parameters.items()) == list(
                inspect.signature(callable_).parameters.items()
            )


@pytest.mark.usefixtures("_remembering")
def test_two_functions_of_one_text_are_told_apart() -> None:
    def make(default: int):
        return lambda x=default: x

    first, second = make(1), make(2)
    assert [decorators.get_signature(f).parameters["x"].default for f in (first, second, first)] == [
        1,
        2,
        1,
    ]


@pytest.mark.usefixtures("_remembering")
def test_options_depend_on_the_flags_and_share_nothing() -> None:
    def experiments(*flags: str) -> list[str]:
        return PipelineOptions(list(flags)).view_as(DebugOptions).experiments or []

    assert experiments() == []
    assert experiments("--experiments=a") == ["a"]
    PipelineOptions(["--experiments=a"]).view_as(DebugOptions).experiments.append("b")
    assert experiments("--experiments=a") == ["a"]
    assert experiments("--experiments=c") == ["c"]


@pytest.mark.usefixtures("_remembering")
def test_views_of_one_object_share_its_values() -> None:
    options = PipelineOptions(["--runner=FnApiRunner"], streaming=True)
    assert options.view_as(StandardOptions).streaming is True
    options.view_as(StandardOptions).runner = "Other"
    assert options.view_as(StandardOptions).runner == "Other"
    assert options.get_all_options()["runner"] == "Other"
    assert PipelineOptions(["--runner=FnApiRunner"]).view_as(StandardOptions).runner == "FnApiRunner"


@pytest.mark.slow
@pytest.mark.usefixtures("_remembering")
def test_state_is_still_found() -> None:
    for _ in range(2):
        with beam.Pipeline() as pipeline:
            numbered = pipeline | beam.Create([("a", 0), ("a", 0), ("b", 0)]) | beam.ParDo(Numbered())
            assert_that(numbered, equal_to([("a", 1), ("a", 2), ("b", 1)]))
