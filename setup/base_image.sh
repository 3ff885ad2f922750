#!/bin/sh
# Builds the image that the Dockerfile starts from, where no image registry can be reached: Debian 13 from Debian's own
# archive. Needs root, debootstrap and podman (or docker). See docs/image.md.
#
#   setup/base_image.sh [NAME]      ENGINE=podman MIRROR=<a Debian mirror, debootstrap's own by default>
set -eu

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
debootstrap --variant=minbase trixie "$root" ${MIRROR:+"$MIRROR"} >&2
# What debian:trixie-slim leaves out too, now and in the packages that come later.
printf 'path-exclude /usr/share/%s/*\n' doc info locale man >"$root/etc/dpkg/dpkg.cfg.d/slim"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log \
  "$root"/usr/share/doc/* "$root"/usr/share/info/* "$root"/usr/share/locale/* "$root"/usr/share/man/*
tar --directory "$root" --numeric-owner --one-file-system --create . |
  "${ENGINE:-podman}" import --change 'CMD ["bash"]' - "${1:-localhost/debian:trixie-slim}"
