#!/bin/sh
# Builds the image that the Dockerfile starts from, where no image registry can be reached: Debian 13
# from Debian's own archive, with the Python 3.11 of Debian 12, whose libraries Debian 13 has under the
# same names. Needs root, debootstrap and podman (or: buildah, docker). See docs/image.md.
#
#   setup/base_image.sh [NAME]      ENGINE=podman MIRROR=<a Debian mirror, debootstrap's own by default>
set -eu

name=${1:-localhost/python:3.11-slim-trixie}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase trixie "$root" ${MIRROR:+"$MIRROR"} >&2
sed 's/trixie/bookworm/' "$root/etc/apt/sources.list" >"$root/etc/apt/sources.list.d/bookworm.list"
# Only what Debian 13 does not have comes from Debian 12.
cat >"$root/etc/apt/preferences.d/bookworm" <<PIN
Package: *
Pin: release n=bookworm
Pin-Priority: 100
PIN
chroot "$root" sh -eu >&2 <<'INSIDE'
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet
apt-get install --quiet --yes --no-install-recommends ca-certificates python3.11 python3-pip-whl
pip=$(echo /usr/share/python-wheels/pip-*.whl)
python3.11 "$pip/pip" install --no-index --no-cache-dir --break-system-packages --root-user-action ignore "$pip"
apt-get purge --yes python3-pip-whl
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/*.log /usr/share/doc/* /usr/share/man/* /usr/share/locale/*
INSIDE
tar --directory "$root" --numeric-owner --one-file-system --create . |
  "${ENGINE:-podman}" import --change 'CMD ["python3.11"]' - "$name"
