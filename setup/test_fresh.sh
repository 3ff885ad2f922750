#!/bin/sh
# Set-up from nothing: makes a Debian 13 root, installs what the README says and nothing else, and runs `make run`
# there on a copy of this checkout, first as root, then as a user without a home folder. Needs root and debootstrap.
#
#   setup/test_fresh.sh [CACHE]      CACHE: a uv cache to start from; without one 2 GB are downloaded
#   SUITE=trixie MIRROR=<the Debian mirror that apt uses here, otherwise deb.debian.org>
set -eu
cd "$(dirname "$0")/.."

command -v debootstrap >/dev/null || { echo 'test-fresh: skipped: no debootstrap here'; exit 0; }
[ "$(id -u)" = 0 ] || { echo 'test-fresh: needs root' >&2; exit 2; }
# In name spaces of its own, so that no mount and no process outlives it.
[ -n "${INSIDE:-}" ] || INSIDE=yes exec unshare --mount --pid --fork --kill-child "$0" "$@"

mirror=${MIRROR:-$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian //p;T;q')}
mirror=${mirror:-http://deb.debian.org/debian}
packages=$(sed -n 's/^apt-get install \([a-z0-9 -]*[a-z0-9]\) .*/\1/p' README.md | head -n 1)
[ -n "$packages" ] || { echo 'test-fresh: README.md names no packages' >&2; exit 2; }
user=12345
root=$(mktemp -d)
chmod 755 "$root"
trap 'umount --recursive "$root/proc" "$root/dev" 2>/dev/null; rm -rf --one-file-system "$root"' EXIT

echo "test-fresh: Debian ${SUITE:=trixie} with $packages"
debootstrap --variant=minbase "$SUITE" "$root" "$mirror" >"$root.log" 2>&1 || { tail "$root.log" >&2; exit 1; }
rm "$root.log"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --make-rslave "$root/dev"
cp /etc/resolv.conf "$root/etc/"
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install --quiet --quiet --yes --no-install-recommends $packages >/dev/null

# pip's index and certificates are this machine's, the only thing that is not Debian's.
[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
if [ -f "${PIP_CERT:-}" ]; then
  mkdir -p "$root$(dirname "$PIP_CERT")"
  cp "$PIP_CERT" "$root$PIP_CERT"
fi

inside() {  # USER HOME FOLDER COMMAND: with an environment of its own, in FOLDER
  chroot --userspec="$1:$1" "$root" env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME="$2" \
    ${PIP_CERT:+PIP_CERT="$PIP_CERT"} ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} \
    sh -euc "cd '$3' && $4"
}

copy_checkout() {  # FOLDER
  mkdir -p "$root$1/.cache"
  git ls-files -z --cached --others --exclude-standard | tar --null --files-from - --create | tar --extract --directory "$root$1"
}

copy_checkout /root/checkout
[ -z "${1:-}" ] || cp -a "$1" "$root/root/checkout/.cache/uv"
echo 'test-fresh: make run as root'
inside 0 /root /root/checkout 'make run'

copy_checkout /srv/checkout
mv "$root/root/checkout/.cache/uv" "$root/srv/checkout/.cache/"
rm -r "$root/root/checkout"
chown -R "$user:$user" "$root/srv/checkout"
echo "test-fresh: make run as user $user, without a home folder"
inside "$user" /nonexistent /srv/checkout 'make run'
[ ! -e "$root/nonexistent" ] || { echo 'test-fresh: something was written to the home folder' >&2; exit 1; }
echo 'test-fresh: both runs pushed a model'
