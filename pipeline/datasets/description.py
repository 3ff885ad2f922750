"""What a data set is, in lines for a person."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.image_example_gen.sources import DataSet
from components.image_example_gen.splitting import splitting
from pipeline import product
from pipeline.config import PipelineConfig
from trainer.features import ImageShape

_CLASSES = 20  # that are listed with their counts


def lines(data: DataSet, folder: Path) -> Iterator[str]:
    """Source, splits, classes, sizes and colours, and what is worth a remark."""
    images = sum(data.examples.values())
    yield f"{folder}: source {data.source}, {images:,} images, {data.num_classes} classes"
    yield f"size   {_size(data)}, {'grey' if data.channels == 1 else 'colour'}"
    made = splitting(data.examples, str(folder))
    for split, size in made.sizes.items():
        cut = f", cut off from {data.examples['train']:,} for training" if split in made.cut else ""
        yield f"split  {split}: {size:,}{cut}"
    for label, name in enumerate(data.class_names[:_CLASSES]):
        counts = ", ".join(f"{split} {of_class[label]:,}" for split, of_class in data.counts.items())
        yield f"class  {label} {name}: {counts}"
    if data.num_classes > _CLASSES:
        yield f"class  and {data.num_classes - _CLASSES} more"
    for note in data.notes:
        yield f"note   {note}"


def advice(config: PipelineConfig, shape: ImageShape) -> Iterator[str]:
    """Defaults that are made for digits, where these are photos."""
    if shape.channels > 1 and "recipe" not in config.trainer.model_fields_set:
        gates = config.gates
        yield (
            f"note   made for digits: recipe {config.trainer.recipe}, gates.accuracy ({gates.accuracy:g}), "
            f"gates.class_accuracy ({gates.class_accuracy:g}); for photos take --recipe residual or "
            "retrain, and gates that these data allow"
        )


def command(folder: Path, settings: Sequence[str]) -> str:
    """The command that trains on it."""
    options = " ".join(f"--set {shlex.quote(setting)}" for setting in settings)
    return f"next   {product.NAME} run --data-dir {shlex.quote(str(folder))} {options}".rstrip()


def _size(data: DataSet) -> str:
    """Height x width in pixels."""
    least, largest = (f"{height} x {width}" for height, width in (data.least, data.largest))
    return f"{least} pixels" if data.one_size else f"{least} to {largest} pixels"
