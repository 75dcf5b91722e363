#!/usr/bin/env bash
# Make .venv ready for `make demo` and `make test`: system libraries of Qt, a virtual environment, the packages;
# for `make test-pyside6` .venv-pyside6, where PySide6 stands in for PyQt6; for `make test-peers` .venv-peers,
# with other programs that open our exports.
# What is there already is left alone. Works with the bash 3.2 of macOS.
#
# Usage: tools/setup.sh demo|test|test-pyside6|test-peers
set -euo pipefail
cd "$(dirname "$0")/.."

purpose=${1:?usage: tools/setup.sh demo|test|test-pyside6|test-peers}
case $purpose in
  test-pyside6) venv=.venv-pyside6 extra=test-pyside6 ;;
  test-peers) venv=.venv-peers extra=test-peers ;;
  *) venv=.venv extra=test ;;
esac
constraints=constraints/ci.txt
stamp=$venv/.chrep-installed

say() { printf '%s\n' "$*" >&2; }
fail() { say "setup: $*"; exit 1; }

# Soname and Debian package of what Qt and its OpenGL canvas load at run time.
libraries="
  libGL.so.1:libgl1 libEGL.so.1:libegl1 libdbus-1.so.3:libdbus-1-3 libfontconfig.so.1:libfontconfig1
  libglib-2.0.so.0:libglib2.0-0 libxkbcommon-x11.so.0:libxkbcommon-x11-0 libxcb-cursor.so.0:libxcb-cursor0
  libxcb-icccm.so.4:libxcb-icccm4 libxcb-keysyms.so.1:libxcb-keysyms1 libxcb-shape.so.0:libxcb-shape0"

missing_packages() {
  local known entry
  known=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null) || return 0 # a Linux that cannot be asked
  for entry in $libraries; do
    case $known in *"${entry%%:*}"*) ;; *) printf '%s ' "${entry#*:}" ;; esac
  done
  command -v Xvfb >/dev/null || printf 'xvfb xauth '
}

install_system_libraries() {
  [ "$(uname -s)" = Linux ] || return 0 # macOS and Windows bring their own
  local missing as_root="" packages
  missing=$(missing_packages)
  [ -n "$missing" ] || return 0
  read -r -a packages <<<"$missing"
  if command -v apt-get >/dev/null; then
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    if [ -z "$as_root" ] || $as_root true 2>/dev/null; then
      say "setup: installing the system libraries ${packages[*]}"
      $as_root apt-get update -qq >&2 || say "setup: the package lists could not be refreshed"
      if $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2; then
        return 0
      fi
    fi
    say "setup: Qt's system libraries are missing. Install them once:"
    say "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${packages[*]}"
  else
    say "setup: Qt's system libraries are missing: the packages that Debian calls ${packages[*]}."
    say "  Install your distribution's equivalents."
  fi
  # The demo works without them (it then opens no window); the tests of the plugin do not.
  [ "$purpose" = demo ] || exit 1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s' "$candidate"
      return 0
    fi
  done
  local found
  found=$("${PYTHON:-python3}" --version 2>&1) || found="none"
  fail "Python 3.11 or newer is needed; found $found. Install one, or name it: make $purpose PYTHON=/path/to/python3.12"
}

make_venv() {
  if $venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then return 0; fi
  local python
  python=$(find_python)
  "$python" -c 'import venv, ensurepip' 2>/dev/null \
    || fail "this Python has no venv. On Debian and Ubuntu: sudo apt-get install -y python3-venv"
  say "setup: making $venv with $("$python" --version)"
  "$python" -m venv --clear $venv
}

# Changes with whatever decides what is installed, and with the place (an editable install points here).
key() {
  $venv/bin/python - pyproject.toml $constraints <<'PY'
import hashlib, pathlib, sys
parts = [sys.version, str(pathlib.Path.cwd()), *(pathlib.Path(name).read_text(encoding="utf-8") for name in sys.argv[1:])]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
PY
}

install_packages() {
  local wanted
  wanted=$(key)
  if [ -f $stamp ] && [ "$(cat $stamp)" = "$wanted" ]; then return 0; fi
  say "setup: installing the packages into $venv (some minutes and about 3 GB the first time)"
  $venv/bin/python -m pip install -qq --disable-pip-version-check -U pip
  $venv/bin/python -m pip install -qq --disable-pip-version-check -c $constraints -e ".[$extra]"
  printf '%s\n' "$wanted" >$stamp
}

install_system_libraries
make_venv
install_packages
