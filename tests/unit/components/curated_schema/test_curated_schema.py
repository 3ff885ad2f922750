"""CuratedSchema: what comes out is the schema that went in, for any class count."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow_data_validation as tfdv
from tfx.types import standard_artifacts

from components.curated_schema.executor import SCHEMA_FILE, Executor
from pipeline.schema import schema_text


def write(tmp_path: Path, text: str) -> Path:
    artifact = standard_artifacts.Schema()
    artifact.uri = str(tmp_path)
    Executor().Do({}, {"schema": [artifact]}, {"schema_text": text})
    return tmp_path / SCHEMA_FILE


@pytest.mark.parametrize("num_classes", [2, 10, 47])
def test_the_label_range_is_the_class_count(tmp_path: Path, num_classes: int) -> None:
    schema = tfdv.load_schema_text(str(write(tmp_path, schema_text(num_classes))))
    domain = tfdv.get_feature(schema, "label").int_domain
    assert (domain.min, domain.max) == (0, num_classes - 1)
    assert {feature.name for feature in schema.feature} == {"image", "label"}


def test_a_broken_schema_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not parse: 2:"):
        write(tmp_path, "feature {\n nonsense: 1 }")
    assert not list(tmp_path.iterdir())
