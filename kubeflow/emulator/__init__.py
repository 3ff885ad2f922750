"""Runs a compiled file on this machine as the backend of Kubeflow Pipelines would: test equipment."""
