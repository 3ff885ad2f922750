"""A compiled pipeline whose runs find out by themselves whether the data changed.

The cache of Kubeflow knows the URI of the data and not what is in it. So a node is put before
ImageExampleGen that computes the fingerprint in the cluster, in each run, and ImageExampleGen takes it as a
parameter: with the same data everything after it comes from the cache, with others everything runs.
"""

from __future__ import annotations

import copy

from kubeflow import fingerprint
from kubeflow.spec import File, SpecError
from pipeline.nodes import NodeId

NODE = NodeId.DATA_FINGERPRINT.value
COMMAND = ("python", "-m", "kubeflow.fingerprint")
_LABEL = f"{NODE}_executor"
_READING = ("num_classes", "options", "source")  # what the data are read with


def with_fingerprint_node(file: File) -> File:
    """The same pipeline with a node that computes the data's fingerprint in each run.

    The node has the image and the pod of ImageExampleGen, and is never cached. The run's parameter for the
    fingerprint is gone.

    Raises:
        SpecError: where no ImageExampleGen is there that takes a fingerprint from the run.
    """
    reader = NodeId.EXAMPLE_GEN.value
    parameters = file.tasks[reader]["inputs"]["parameters"] if reader in file.tasks else {}
    of_run = parameters.get(fingerprint.FINGERPRINT, {}).get("componentInputParameter")
    if of_run is None:
        raise SpecError(
            f"has no {reader} that takes the fingerprint of its data from the run, so nothing tells other "
            "data; compile the file again"
        )
    made = File(copy.deepcopy(file.pipeline), copy.deepcopy(file.platform), file.service_account)
    task, component, label = (
        made.tasks[reader],
        made.component(reader),
        made.component(reader)["executorLabel"],
    )
    dataset = {fingerprint.DATASET: task["inputs"]["artifacts"][fingerprint.DATASET]}
    read_with = {name: task["inputs"]["parameters"][name] for name in _READING}
    own = {
        "componentRef": {"name": NODE},
        "taskInfo": {"name": NODE},
        "dependentTasks": [source["taskOutputArtifact"]["producerTask"] for source in dataset.values()],
        "inputs": {"artifacts": dataset, "parameters": read_with},
    }
    made.tasks[NODE] = own | {key: task[key] for key in ("retryPolicy",) if key in task}
    definitions = component["inputDefinitions"]
    made.pipeline["components"][NODE] = {
        "executorLabel": _LABEL,
        "inputDefinitions": {
            "artifacts": {fingerprint.DATASET: definitions["artifacts"][fingerprint.DATASET]},
            "parameters": {name: definitions["parameters"][name] for name in _READING},
        },
        "outputDefinitions": {"parameters": {fingerprint.FINGERPRINT: {"parameterType": "STRING"}}},
    }
    container = {"command": list(COMMAND), "args": ["{{$}}"]}
    made.executors[_LABEL] = {"container": made.executors[label]["container"] | container}
    if label in made.kubernetes:
        made.kubernetes[_LABEL] = made.kubernetes[label]

    task["inputs"]["parameters"][fingerprint.FINGERPRINT] = {
        "taskOutputParameter": {"producerTask": NODE, "outputParameterKey": fingerprint.FINGERPRINT}
    }
    task["dependentTasks"] = sorted({*task.get("dependentTasks", ()), NODE})
    del made.parameters[of_run]
    return made
