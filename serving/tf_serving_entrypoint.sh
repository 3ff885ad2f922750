#!/bin/sh
# The entrypoint of the image `serving`: that of TF Serving's image, whose manifests need no change.
exec tensorflow_model_server --port=8500 --rest_api_port=8501 \
  --model_name="$MODEL_NAME" --model_base_path="$MODEL_BASE_PATH/$MODEL_NAME" "$@"
