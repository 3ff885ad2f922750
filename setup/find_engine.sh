#!/bin/sh
# Prints the first of docker, podman and buildah that works here. A docker client alone does not: it needs a daemon,
# and buildx for the build's secrets.
for engine in docker podman buildah; do
  "$engine" info >/dev/null 2>&1 || continue
  [ "$engine" != docker ] || docker buildx version >/dev/null 2>&1 || continue
  echo "$engine"
  exit
done
echo 'image: none of docker (with its daemon and buildx), podman and buildah works here: install one' >&2
exit 2
