#!/bin/sh
# Compares the requests of the last days with what the newest version of a model was trained on and, where they
# differ, starts a run of the pipeline, which first looks whether its data changed: known ones train nothing.
#
# MODEL      folder of the model's versions
# REQUESTS   folder of the request log; what is older than KEEP_DAYS is removed
# PIPELINE   the compiled file
# COOL_DOWN  no run is started while the pipeline's newest one is younger
# NAMESPACE  of the user, where Kubeflow has several
#
# Exit code: 0 no drift, or drift and a run is started or was in the cool-down; 1 the run was refused;
# 2 nothing to compare, or bad input
set -u
find "$REQUESTS" -name '*.tfrecord*' -mtime "+$KEEP_DAYS" -delete
mnist monitor --root /tmp --model "$MODEL" --logs "$REQUESTS"
code=$?
[ "$code" -eq 3 ] || exit "$code"
exec mnist submit "$PIPELINE" --namespace "$NAMESPACE" --run-name "drift $(date -u +%Y-%m-%dT%H:%MZ)" \
  --when-data-changes --cool-down "$COOL_DOWN"
