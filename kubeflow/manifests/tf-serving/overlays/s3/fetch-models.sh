#!/bin/sh
# Copies the newest versions of a model from an object store into the folder that TensorFlow Serving watches.
# A version appears there at once and whole: it is copied under a name that the server does not look at, and
# only when its listing has not changed for one round, because an upload puts one file after the other.
#
# SOURCE  rclone's name of the folder that holds the numbered versions
# TARGET  the folder that the server watches
# KEEP    how many versions stay; POLL_S: seconds between two looks; ROUNDS: looks until it ends, 0: never
set -u
export RCLONE_CONFIG=/dev/null # all settings are in the environment

state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
trap 'exit 0' TERM INT

newest_first() { grep -x '[0-9][0-9]*' | sort -rn; }

# Whether a version is complete in the store and was so one round ago.
upload_complete() {
  rclone lsf --recursive --files-only --format ps "$SOURCE/$1" | sort >"$state/now"
  if cmp -s "$state/now" "$state/$1"; then
    grep -q '^saved_model\.pb;' "$state/now"
  else
    mv "$state/now" "$state/$1"
    return 1
  fi
}

fetch() {
  rm -rf "$TARGET/.fetching"
  rclone copy --quiet "$SOURCE/$1" "$TARGET/.fetching" || return 1
  mv "$TARGET/.fetching" "$TARGET/$1" && echo "fetched version $1"
}

look() {
  rclone lsf --dirs-only "$SOURCE" >"$state/listing" || return
  here=0
  for version in $(tr -d / <"$state/listing" | newest_first); do
    [ "$here" -lt "$KEEP" ] || break
    [ -d "$TARGET/$version" ] || { upload_complete "$version" && fetch "$version"; } || continue
    here=$((here + 1))
  done
  # What is here and whole counts, so that a broken upload never takes the last good version away.
  for version in $(ls "$TARGET" | newest_first | tail -n "+$((KEEP + 1))"); do
    rm -rf "${TARGET:?}/$version" && echo "removed version $version"
  done
}

mkdir -p "$TARGET"
round=0
while :; do
  look
  round=$((round + 1))
  [ "$round" != "${ROUNDS:-0}" ] || exit 0
  sleep "$POLL_S" &
  wait $!
done
