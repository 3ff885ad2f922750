"""From the pipeline's definition to open-source Kubeflow Pipelines: compile, check, run, submit."""
