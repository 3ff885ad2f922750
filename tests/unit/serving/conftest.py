"""Models for the tests of what serves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.serving import half_plus_two


@pytest.fixture(scope="session")
def half_plus_two_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The conformance models and their config file."""
    folder = tmp_path_factory.mktemp("half-plus-two")
    half_plus_two.write_all(folder)
    return folder
