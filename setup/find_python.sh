#!/bin/sh
# Prints the Python to build the environment of: the one that is asked for, the one that .venv has already, or the
# newest on this machine that the project runs on. Says what to install where there is none.
#
#   setup/find_python.sh [PYTHON]
cd "$(dirname "$0")/.." || exit

if [ -n "${1:-}" ]; then
  command -v "$1" && exit
  echo "setup: $1 not found" >&2
  exit 2
fi
present=$(sed -n 's/^executable = //p' .venv/pyvenv.cfg 2>/dev/null)
for name in ${present:+"$present"} python3.13 python3.12 python3.11 python3; do
  # Started, not only looked up: a version manager's shim is there for versions that are switched off, too.
  if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
    command -v "$name"
    exit
  fi
done
ID='' ID_LIKE='' PRETTY_NAME='this system'
# shellcheck source=/dev/null
[ -r /etc/os-release ] && . /etc/os-release
case " $ID $ID_LIKE " in
  *' debian '* | *' ubuntu '*) how='apt-get install python3 python3-venv (Debian 12 or 13, Ubuntu 24.04)' ;;
  *' fedora '* | *' rhel '*) how='dnf install python3.13' ;;
  *' suse '* | *' opensuse '*) how='zypper install python313' ;;
  *) how='install Python 3.13 with its venv module' ;;
esac
echo "setup: no Python 3.11, 3.12 or 3.13 on $PRETTY_NAME: $how, or name one: make PYTHON=…" >&2
exit 2
