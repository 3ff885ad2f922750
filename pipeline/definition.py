"""The pipeline: the only place where nodes are wired."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tensorflow_data_validation import StatsOptions
from tfx.components.example_validator.component import ExampleValidator
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.trainer.component import Trainer
from tfx.components.transform.component import Transform
from tfx.components.tuner.component import Tuner
from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import pusher_pb2, trainer_pb2
from tfx.types.standard_artifacts import Model

from components.artifacts import DataBlessing, Images
from components.baseline_model.component import BaselineModel
from components.curated_schema.component import CuratedSchema
from components.data_gate.component import DataGate
from components.evaluator.component import Evaluator
from components.evaluator.tfma_files import eval_config
from components.image_example_gen.component import ImageExampleGen
from components.pusher.component import Pusher
from components.report_gen.component import ReportGen
from components.serving_validator.component import ServingValidator
from pipeline.config import DataGateConfig, PipelineConfig, TrainerConfig
from pipeline.history.connection import connection_config
from pipeline.nodes import NodeId
from pipeline.schema import schema_text
from trainer import features


@dataclass(frozen=True)
class _Prepared:
    """The nodes that every pipeline here begins with: checked data, and the graph that makes features."""

    images: Importer
    example_gen: ImageExampleGen
    schema: CuratedSchema
    statistics_gen: StatisticsGen
    example_validator: ExampleValidator
    previous_data: Importer | None
    data_gate: DataGate
    transform: Transform

    def nodes(self) -> list[BaseNode]:
        return [node for node in vars(self).values() if node is not None]


def create_pipeline(config: PipelineConfig) -> Pipeline:
    """Wire the nodes: IDX files to a pushed model.

    Args:
        config: all settings; `data` describes the data set at `data.uri`.

    Returns:
        TFX's logical pipeline, for any runner.
    """
    prepared = _prepare(config)
    example_gen, schema, transform = prepared.example_gen, prepared.schema, prepared.transform
    warm_start = _warm_start(config.trainer)
    trainer = Trainer(
        run_fn="trainer.train.run_fn",
        examples=example_gen.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema.outputs["schema"],
        base_model=warm_start.outputs["result"] if warm_start else None,
        train_args=trainer_pb2.TrainArgs(splits=[features.TRAIN]),
        eval_args=trainer_pb2.EvalArgs(splits=[features.VALIDATION]),
        custom_config=_custom_config(config, Trainer.__name__),
    )
    baseline_model = _baseline_model(config, trainer)
    evaluator = Evaluator(
        examples=example_gen.outputs["examples"],
        model=trainer.outputs["model"],
        baseline_model=baseline_model.outputs["result"],
        model_run=trainer.outputs["model_run"],
        split=features.TEST,
        eval_config=eval_config(),
        gates=config.gates.model_dump(),
    )
    serving_validator = ServingValidator(
        model=trainer.outputs["model"],
        examples=example_gen.outputs["examples"],
        split=features.TEST,
        **config.serving_validator.model_dump(),
    )
    pusher = Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=serving_validator.outputs["blessing"],
        baseline_model=baseline_model.outputs["result"],
        data_blessing=prepared.data_gate.outputs["blessing"],
        evaluation=evaluator.outputs["evaluation"],
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=_push_directory(config))
        ),
    )
    report_gen = ReportGen(
        examples=example_gen.outputs["examples"],
        statistics=prepared.statistics_gen.outputs["statistics"],
        anomalies=prepared.example_validator.outputs["anomalies"],
        data_blessing=prepared.data_gate.outputs["blessing"],
        model_run=trainer.outputs["model_run"],
        evaluation=evaluator.outputs["evaluation"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=serving_validator.outputs["blessing"],
        pushed_model=pusher.outputs["pushed_model"],
        model_name=config.push.model_name,
        recipe=config.trainer.recipe,
    )
    return _pipeline(
        config,
        [
            *prepared.nodes(),
            *filter(None, [warm_start]),
            trainer,
            serving_validator,
            baseline_model,
            evaluator,
            pusher,
            report_gen,
        ],
    )


def create_tuning_pipeline(config: PipelineConfig, trials: int) -> Pipeline:
    """Wire the nodes: IDX files to better hyper-parameters for the recipe.

    Args:
        config: as for create_pipeline, with which it shares the results of common nodes.
        trials: how many values to try.

    Returns:
        TFX's logical pipeline.
    """
    prepared = _prepare(config)
    tuner = Tuner(
        tuner_fn="trainer.tune.tuner_fn",
        examples=prepared.example_gen.outputs["examples"],
        transform_graph=prepared.transform.outputs["transform_graph"],
        schema=prepared.schema.outputs["schema"],
        train_args=trainer_pb2.TrainArgs(splits=[features.TRAIN]),
        eval_args=trainer_pb2.EvalArgs(splits=[features.VALIDATION]),
        custom_config=_custom_config(config, Tuner.__name__) | {"trials": trials},
    )
    return _pipeline(config, [*prepared.nodes(), tuner])


def _warm_start(trainer: TrainerConfig) -> Importer | None:
    """What the training begins with, where it does not begin anew."""
    if not trainer.warm_start_from:
        return None
    return Importer(
        source_uri=trainer.warm_start_from,
        artifact_type=Model,
        custom_properties={"fingerprint": trainer.warm_start_fingerprint},
    ).with_id(NodeId.WARM_START.value)


def _baseline_model(config: PipelineConfig, trainer: Trainer) -> BaselineModel | Importer:
    """The model to compare with: a given one, or the one that the candidate would replace."""
    if config.baseline.uri:
        return Importer(
            source_uri=config.baseline.uri,
            artifact_type=Model,
            # Other files in the same folder are another artifact, never a stale cache hit.
            custom_properties={"fingerprint": config.baseline.fingerprint},
        ).with_id(NodeId.BASELINE_MODEL.value)
    return BaselineModel(
        candidate=trainer.outputs["model"],
        base_directory=_push_directory(config),
        version=config.baseline.version,
    )


def _custom_config(config: PipelineConfig, node: str) -> dict[str, Any]:
    # run_fn sees nothing but its custom_config, and tells a checkpoint of other code by the hash.
    code = config.code.get(node)
    settings = config.trainer.custom_config() | {"images": config.data.images._asdict()}
    names = {"class_names": list(config.data.class_names)} if config.data.class_names else {}
    if config.push.lite and node == Trainer.__name__:
        settings["lite"] = config.push.lite
    return settings | names | ({"code": code} if code else {})


def _push_directory(config: PipelineConfig) -> str:
    return str(config.serving_dir) if config.push.to == "folder" else ""


def _prepare(config: PipelineConfig) -> _Prepared:
    data = config.data
    images = Importer(
        source_uri=data.uri,
        artifact_type=Images,
        # Other contents in the same folder are another artifact, never a stale cache hit.
        custom_properties={"fingerprint": data.fingerprint},
    ).with_id(NodeId.IMAGES.value)
    example_gen = ImageExampleGen(
        dataset=images.outputs["result"],
        fingerprint=data.fingerprint,
        num_classes=data.num_classes,
        shards=data.shards,
        source=data.source,
        options=json.dumps(data.options(), sort_keys=True),
        images=json.dumps(data.images._asdict()),
    )
    schema = CuratedSchema(schema_text=schema_text(data.num_classes or features.DEFAULT_NUM_CLASSES))
    statistics_gen = StatisticsGen(
        examples=example_gen.outputs["examples"],
        schema=schema.outputs["schema"],
        # Ids are for people: a million different texts have no statistics.
        stats_options=StatsOptions(feature_allowlist=[features.IMAGE, features.LABEL]),
    )
    example_validator = ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema.outputs["schema"]
    )
    gate = config.data_gate
    previous_data = _previous_data(gate)
    data_gate = DataGate(
        examples=example_gen.outputs["examples"],
        anomalies=example_validator.outputs["anomalies"],
        dataset=data.dataset,
        previous=previous_data.outputs["result"] if previous_data else None,
        **gate.model_dump(exclude={"drift", "previous", "previous_fingerprint"}),
    )
    transform = Transform(
        examples=example_gen.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn="trainer.preprocessing.preprocessing_fn",
        custom_config={
            "images": data.images._asdict(),
            "code": config.code.get(Transform.__name__, ""),
        },
        # The Trainer applies the graph batch by batch: floats on disk would be four times the bytes.
        materialize=False,
        disable_statistics=True,
        disable_analyzer_cache=True,
    )
    transform.add_upstream_node(data_gate)
    return _Prepared(
        images,
        example_gen,
        schema,
        statistics_gen,
        example_validator,
        previous_data,
        data_gate,
        transform,
    )


def _previous_data(gate: DataGateConfig) -> Importer | None:
    """The facts of the data before these, where there are any."""
    if not gate.previous:
        return None
    return Importer(
        source_uri=gate.previous,
        artifact_type=DataBlessing,
        custom_properties={"fingerprint": gate.previous_fingerprint},
    ).with_id(NodeId.PREVIOUS_DATA.value)


def _pipeline(config: PipelineConfig, nodes: list[BaseNode]) -> Pipeline:
    for node in nodes:
        if isinstance(node, BaseBeamComponent):
            node.with_beam_pipeline_args(config.beam.flags(node.id))
        if (code := config.code.get(node.id)) and not isinstance(node, (Transform, Trainer, Tuner)):
            # A property that no executor reads: it makes new code another node for every cache.
            node.exec_properties["code"] = code
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(config.pipeline_root),
        components=nodes,
        enable_cache=config.cache,
        metadata_connection_config=connection_config(config),
    )
