"""ImageExampleGen: interface."""

from __future__ import annotations

from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.artifacts import Images
from components.image_example_gen.executor import Executor


class ImageExampleGenSpec(ComponentSpec):
    """A data set in, examples out."""

    PARAMETERS = {
        "fingerprint": ExecutionParameter(type=str),
        "num_classes": ExecutionParameter(type=int),
        "images": ExecutionParameter(type=str),
        "options": ExecutionParameter(type=str),
        "shards": ExecutionParameter(type=int),
        "source": ExecutionParameter(type=str),
    }
    INPUTS = {"dataset": ChannelParameter(type=Images)}
    OUTPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}


class ImageExampleGen(BaseBeamComponent):
    """Turns labelled images from any source into tf.Examples in the splits train, validation and test.

    Where the source has no validation split, the twelfth of the examples for training with the smallest
    content hashes is `validation`; where it has no test split, the next sixth is `test`. What the examples
    are is in custom properties of the artifact: images (fields of features.ImageInput, as JSON), height and
    width, class_names (JSON), num_classes, fingerprint, source, skipped and `<split>_examples`.
    """

    SPEC_CLASS = ImageExampleGenSpec
    EXECUTOR_SPEC = BeamExecutorSpec(Executor)

    def __init__(
        self,
        dataset: BaseChannel,
        fingerprint: str | RuntimeParameter = "",
        num_classes: int | RuntimeParameter = 0,
        shards: int | RuntimeParameter = 1,
        source: str | RuntimeParameter = "",
        options: str | RuntimeParameter = "",
        images: str | RuntimeParameter = "",
    ) -> None:
        """Declare the node.

        Args:
            dataset: one Images artifact.
            fingerprint: what the source says about the files; other contents are an error. Empty: any.
            num_classes: labels must be below it; 0: as the data say.
            shards: files per split.
            source: by its name in sources.NAMES; empty: by what is in the folder.
            options: fields of sources.Options, as JSON.
            images: fields of features.ImageInput, as JSON: what a network reads; empty: as the data are.
        """
        super().__init__(
            ImageExampleGenSpec(
                dataset=dataset,
                fingerprint=fingerprint,
                num_classes=num_classes,
                shards=shards,
                source=source,
                options=options,
                images=images,
                examples=Channel(type=standard_artifacts.Examples),
            )
        )
