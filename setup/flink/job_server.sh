#!/bin/sh
# Builds Beam's job server for Flink into .cache/flink/job-server.jar, once. Where Maven is missing or gets
# no answer, it says so in one line and leaves nothing.
set -eu
cd "$(dirname "$0")"
jar=../../.cache/flink/job-server.jar
[ -f "$jar" ] && exit 0
# Debian's Maven brings Java with it.
command -v mvn >/dev/null || { echo "flink: Maven is not here (Debian: apt-get install maven)" >&2; exit 0; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Maven's own settings say where it looks; -C: what does not fit its checksum is an error.
if ! mvn -q -B -C package >"$log" 2>&1; then
  rm -f "$jar"
  echo "flink: Maven could not build the job server: $(grep -m 1 ERROR "$log")" >&2
fi
