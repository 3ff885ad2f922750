"""What goes into a run is looked at before it: recipe, data and code. Reads no TensorFlow."""

from __future__ import annotations

from pathlib import Path

from components.image_example_gen.sources import idx
from pipeline.code_hash import code_hashes
from pipeline.config import CODE, ConfigError, PipelineConfig
from trainer import recipes
from trainer.features import ImageShape


def check_training(config: PipelineConfig) -> None:
    """Refuse what the Trainer would refuse after minutes, or in the cluster.

    Raises:
        ConfigError: for an unknown recipe, a wrong value, or images that are too small for its network.
    """
    try:
        params = recipes.resolve(config.trainer.recipe, **config.trainer.overrides())
        if not config.trainer.build_network:
            params.check_image_size(ImageShape(config.data.height, config.data.width))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def with_facts(config: PipelineConfig, folder: Path | None) -> PipelineConfig:
    """Put the hashes of the code and what the data are into the config; their URI stays.

    Args:
        config: settings.
        folder: the four IDX files, each of which is read once; None where no copy is here.

    Raises:
        IdxError: for a file with a fault, or too few examples.
        ConfigError: as check_training, with these data.
    """
    if folder is not None:
        facts = idx.inspect(folder.absolute(), config.data.num_classes or None)
        idx.split_sizes(folder, facts)  # refuses too few examples
        config = config.replace(
            "data",
            fingerprint=facts.fingerprint,
            height=facts.height,
            width=facts.width,
            num_classes=facts.num_classes,
        )
    check_training(config)
    return config.model_copy(update={CODE: code_hashes(config.trainer)})
