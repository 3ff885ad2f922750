#!/bin/sh
# Builds the image with Docker, podman or buildah, whichever works here.
#
#   setup/build_image.sh cpu|gpu|serving NAME
#
# ENGINE      docker, podman or buildah
# BASE        the image to start from: Debian 13 or later, or one made of it
# BUILD_ARGS  more options for the engine, e.g. "--isolation chroot --network host"
#
# Packages come from the index that pip is set up for on this machine; its settings and certificates go in
# as build secrets, which no layer keeps.
set -eu
cd "$(dirname "$0")/.."

python=$PWD/.venv/bin/python
engine=${ENGINE:-$(setup/find_engine.sh)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/context" "$work/secrets"
# A copy, so that the labels tell what the image is made of even if a file is saved meanwhile.
tar --create --exclude=__pycache__ Dockerfile .dockerignore pyproject.toml uv.lock \
  setup _tfx_image_pipeline.py components kubeflow pipeline serving trainer | tar --extract --directory "$work/context"
cd "$work/context"
arguments=$("$python" -m setup.image_inputs "$work/secrets")

# The two lists of options are meant to fall apart into words.
# shellcheck disable=SC2086
"$engine" build --file Dockerfile --target "$1" --tag "$2" \
  ${BASE:+--build-arg BASE="$BASE"} $arguments \
  --secret id=pip.conf,src="$work/secrets/pip.conf" --secret id=ca.pem,src="$work/secrets/ca.pem" \
  ${BUILD_ARGS:-} .
