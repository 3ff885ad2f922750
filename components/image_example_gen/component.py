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
    """IDX files in, examples out."""

    PARAMETERS = {
        "fingerprint": ExecutionParameter(type=str),
        "num_classes": ExecutionParameter(type=int),
        "shards": ExecutionParameter(type=int),
    }
    INPUTS = {"dataset": ChannelParameter(type=Images)}
    OUTPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}


class ImageExampleGen(BaseBeamComponent):
    """Turns a folder of four IDX files into tf.Examples in the splits train, validation and test.

    The twelfth of the training files' examples with the smallest content hashes is `validation`, the
    rest of them `train`; the test files are `test`. Facts about the data are custom properties of the
    artifact: height, width, num_classes, fingerprint and `<split>_examples`.
    """

    SPEC_CLASS = ImageExampleGenSpec
    EXECUTOR_SPEC = BeamExecutorSpec(Executor)

    def __init__(
        self,
        dataset: BaseChannel,
        fingerprint: str | RuntimeParameter = "",
        num_classes: int | RuntimeParameter = 0,
        shards: int | RuntimeParameter = 1,
    ) -> None:
        """Declare the node.

        Args:
            dataset: one Images artifact.
            fingerprint: what idx.inspect says about the files; other contents are an error. Empty: any.
            num_classes: labels must be below it; 0: as the training labels say.
            shards: files per split.
        """
        super().__init__(
            ImageExampleGenSpec(
                dataset=dataset,
                fingerprint=fingerprint,
                num_classes=num_classes,
                shards=shards,
                examples=Channel(type=standard_artifacts.Examples),
            )
        )
