"""Where the Beam pipelines inside the nodes run: in this process, or on an engine, with Beam's flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from pipeline.sections import NonNegativeInt, Section, Strings

# Without a container image TFX builds a source package of itself for every Beam node.
IN_NO_CONTAINER = ("--sdk_container_image=not-used-in-process",)
# Job servers tell everything that an engine does, and the metrics of each job, on hundreds of pages.
QUIET_JAVA = "--job_server_jvm_properties=-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
# Beam's own default is a Go binary that it downloads at run time; this one never leaves the process.
LOCAL_BEAM_ARGS = ("--runner=FnApiRunner", *IN_NO_CONTAINER)


class WorkersConfig(Section):
    """How an engine of portable Beam runs the Python code of a node."""

    master: str = Field("[local]", description="the engine: host:port; [local]: one inside the job server")
    version: str = Field("", description="the engine's version, for the jar; empty: Beam's newest")
    job_server_jar: str = Field("", description="Beam's job server; empty: Beam downloads its own")
    job_endpoint: str = Field("", description="host:port of a job server that runs; empty: start one")
    artifact_endpoint: str = Field("", description="its host:port for files; empty: as it says itself")
    environment: Literal["LOOPBACK", "EXTERNAL"] = Field(
        "LOOPBACK", description="Python code runs in this process, or in worker pools next to the engine"
    )
    worker_pool: str = Field(
        "localhost:50000", description="host:port of a worker pool, as a machine of the engine sees it"
    )

    def common_flags(self) -> list[str]:
        """The flags that every engine of portable Beam has."""
        endpoints = {"job_endpoint": self.job_endpoint, "artifact_endpoint": self.artifact_endpoint}
        workers: dict[str, str] = {"environment_type": self.environment}
        if self.environment == "EXTERNAL":
            workers["environment_config"] = self.worker_pool
        return [*_flags(endpoints), *_flags(workers), QUIET_JAVA, *IN_NO_CONTAINER]


class FlinkConfig(WorkersConfig):
    """Apache Flink, through Beam's job server."""

    version: str = Field("1.19", description="Flink's version, as in the name of Beam's job server")
    parallelism: PositiveInt = Field(2, description="task slots that a node uses")

    def flags(self) -> list[str]:
        """Beam's flags."""
        flink = {
            "runner": "FlinkRunner",
            "flink_master": self.master,
            "flink_version": self.version,
            "flink_job_server_jar": self.job_server_jar,
            "parallelism": self.parallelism,
        }
        return [*_flags(flink), *self.common_flags()]


class SparkConfig(WorkersConfig):
    """Apache Spark, through Beam's job server."""

    master: str = Field("local[2]", description="Spark's master URL")
    version: str = Field("3", description="Spark's major version")

    def flags(self) -> list[str]:
        """Beam's flags."""
        spark = {
            "runner": "SparkRunner",
            "spark_master_url": self.master,
            "spark_version": self.version,
            "spark_job_server_jar": self.job_server_jar,
        }
        return [*_flags(spark), *self.common_flags()]


class DataflowConfig(Section):
    """Google Cloud Dataflow."""

    project: str = Field("", description="project that pays")
    region: str = Field("", description="where the workers are")
    temp_location: str = Field("", description="folder for what lasts as long as a job: gs://…")
    image: str = Field("", description="image of the workers: this project's, with Beam's boot program")
    service_account: str = Field("", description="account of the workers; empty: the project's default")
    machine_type: str = Field("", description="kind of worker; empty: Dataflow's choice")
    max_workers: NonNegativeInt = Field(0, description="workers at most; 0: Dataflow's choice")

    def flags(self) -> list[str]:
        """Beam's flags."""
        dataflow = {
            "runner": "DataflowRunner",
            "project": self.project,
            "region": self.region,
            "temp_location": self.temp_location,
            "sdk_container_image": self.image,
            "service_account_email": self.service_account,
            "machine_type": self.machine_type,
            "max_num_workers": self.max_workers,
        }
        return [*_flags(dataflow), "--sdk_location=container"]

    def missing(self) -> list[str]:
        """What Dataflow cannot do without and has no value."""
        needed = ("project", "region", "temp_location", "image")
        return [name for name in needed if not getattr(self, name)]


def _flags(values: Mapping[str, object]) -> list[str]:
    """`--name=value` for each value that says something."""
    return [f"--{name}={value}" for name, value in values.items() if value]


Runner = Literal["local", "flink", "spark", "dataflow"]


class BeamNode(Section):
    """What one node does otherwise than `beam` says."""

    runner: Runner | None = Field(None, description="where it runs; unset: as beam.runner says")
    args: Strings = Field((), description="more of Beam's own flags")


class BeamNodes(Section):
    """The nodes that run on Beam, by their ids."""

    ImageExampleGen: BeamNode = BeamNode()
    StatisticsGen: BeamNode = BeamNode()
    DataGate: BeamNode = BeamNode()
    Transform: BeamNode = BeamNode()
    Evaluator: BeamNode = BeamNode()
    Batch: BeamNode = Field(BeamNode(), description="bulk inference, which is no node: the command `batch`")


class BeamConfig(Section):
    """Where the Beam pipelines inside the nodes run."""

    runner: Runner = Field("local", description="in this process, or on an engine: flink, spark, dataflow")
    args: Strings = Field((), description="more of Beam's own flags")
    flink: FlinkConfig = FlinkConfig()
    spark: SparkConfig = SparkConfig()
    dataflow: DataflowConfig = DataflowConfig()
    nodes: BeamNodes = BeamNodes()

    def runner_of(self, node: str) -> Runner:
        """Where a node runs."""
        return self._node(node).runner or self.runner

    def flags(self, node: str) -> list[str]:
        """Beam's flags for a node; those of the settings' `args` come last, so that they win."""
        runner = self.runner_of(node)
        own = list(LOCAL_BEAM_ARGS) if runner == "local" else getattr(self, runner).flags()
        return [*own, *self.args, *self._node(node).args]

    def _node(self, node: str) -> BeamNode:
        own: BeamNode = getattr(self.nodes, node, BeamNode())
        return own

    @model_validator(mode="after")
    def _dataflow_is_complete(self) -> BeamConfig:
        on_dataflow = any(self.runner_of(node) == "dataflow" for node in BeamNodes.model_fields)
        if on_dataflow and (missing := self.dataflow.missing()):
            raise ValueError(f"dataflow needs {', '.join(f'beam.dataflow.{name}' for name in missing)}")
        return self
