# Sourced by the scripts beside it: brings a fresh Debian or Ubuntu to a built checkout.
#
# Needs a shell, git, Python >= 3.10, and root or sudo if Debian packages are missing. Uses apt and
# pip as they are configured (mirrors, proxies). Everything is idempotent; a second run takes seconds.
# Sets: ROOT, VENV, PYTHON (the environment's), BUILD, EBBTIDE_NATIVE_DIR.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=$ROOT/.venv
PYTHON=$VENV/bin/python
BUILD=$ROOT/build
JOBS=${EBBTIDE_JOBS:-$(nproc)}

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
note() { printf '    %s\n' "$*"; }
fail() {
  printf 'ebbtide error %s\n' "$*" >&2
  exit 2
}

# package:file that proves it is there (a command without a slash is looked up in PATH).
SYSTEM_PACKAGES="
g++:g++
cmake:cmake
ninja-build:ninja
zlib1g-dev:/usr/include/zlib.h
libfmt-dev:/usr/include/fmt/format.h
nlohmann-json3-dev:/usr/include/nlohmann/json.hpp
libgtest-dev:/usr/include/gtest/gtest.h
libgmock-dev:/usr/include/gmock/gmock.h
libbenchmark-dev:/usr/include/benchmark/benchmark.h
"

missing_packages() {
  local entry package proof
  for entry in $SYSTEM_PACKAGES; do
    package=${entry%%:*} proof=${entry#*:}
    case $proof in
      /*) [ -e "$proof" ] || echo "$package" ;;
      *) command -v "$proof" >/dev/null 2>&1 || echo "$package" ;;
    esac
  done
}

install_packages() {
  [ $# -gt 0 ] || return 0
  command -v apt-get >/dev/null 2>&1 ||
    fail "these packages are missing and there is no apt-get to install them: $*"
  local as_root=""
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || fail "root is needed once: apt-get install $*"
    as_root=sudo
  fi
  say "installing Debian packages: $*"
  # An image may come without package lists: fetch them, and go on if a mirror of no concern fails.
  $as_root apt-get update -qq || note "apt-get update failed; trying with the lists at hand"
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
    >/dev/null || fail "apt-get could not install: $*"
}

ensure_system() {
  # shellcheck disable=SC2046  # the names are single words
  install_packages $(missing_packages)
}

find_base_python() {
  local candidate
  for candidate in ${EBBTIDE_PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))'; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.10 to 3.14 found (${EBBTIDE_PYTHON:-python3}): set EBBTIDE_PYTHON to one"
}

# Debian's Python has no Python.h without python3-dev; others bring it.
ensure_python_headers() {
  "$PYTHON" -c 'import glob, os, sys, sysconfig
folders = [sysconfig.get_path("include"), *glob.glob("/usr/include/python3.1*")]
sys.exit(not any(os.path.exists(folder + "/Python.h") for folder in folders))' || install_packages python3-dev
}

ensure_venv() {
  [ -x "$PYTHON" ] && "$PYTHON" -m pip --version >/dev/null 2>&1 && return
  local base
  base=$(find_base_python) || exit 2
  # Debian's Python has no ensurepip without python3-venv; others bring it.
  if ! "$base" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    local version
    version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    case $("$base" -c 'import sys; print(sys.executable)') in
      /usr/bin/python3 | "/usr/bin/python$version") install_packages "python$version-venv" ;;
      *) fail "$base has no venv module: install it, or set EBBTIDE_PYTHON to a Python that has" ;;
    esac
  fi
  say "making a virtual environment in .venv ($("$base" --version))"
  rm -rf "$VENV"
  "$base" -m venv "$VENV"
}

# What tells that .venv holds what is required.
required_packages() {
  { cat "$ROOT/scripts/lib/requirements.txt"; "$PYTHON" --version; } | sha256sum | cut -d' ' -f1
}

has_python_packages() {
  [ "$(cat "$VENV/.ebbtide-requirements" 2>/dev/null)" = "$(required_packages)" ]
}

ensure_python_packages() {
  local requirements=$ROOT/scripts/lib/requirements.txt
  has_python_packages && return
  say "installing Python packages into .venv (torch is about 2 GB to fetch, 5 GB on disk)"
  grep -v '^#' "$requirements" | sed 's/^/    /'
  "$PYTHON" -m pip install --disable-pip-version-check --progress-bar off -q -r "$requirements" ||
    fail "pip could not install scripts/lib/requirements.txt"
  required_packages >"$VENV/.ebbtide-requirements"
}

# build_tree FOLDER [cmake options]: configures (a second if nothing changed) and builds.
build_tree() {
  local folder=$1
  shift
  say "building in ${folder#"$ROOT"/} with $JOBS jobs"
  cmake -S "$ROOT" -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DPython3_EXECUTABLE="$PYTHON" "$@" >"$folder.log" 2>&1 ||
    { cat "$folder.log" >&2; fail "cmake could not configure ${folder#"$ROOT"/}"; }
  cmake --build "$folder" -j "$JOBS" || fail "the build in ${folder#"$ROOT"/} failed"
}

# The checkout's own python_shim, importable in .venv with the entry point that torch loads.
link_package() {
  "$PYTHON" "$ROOT/scripts/lib/link_package.py" --metadata "$BUILD/python" --link
}

# bootstrap [cmake options]: all of the above.
bootstrap() {
  cd "$ROOT" || exit 2
  ensure_system
  ensure_venv
  ensure_python_headers
  ensure_python_packages
  build_tree "$BUILD" "$@"
  link_package
  export EBBTIDE_NATIVE_DIR=$BUILD/native
}

# For machines where nothing may be installed: a Python that has torch already.
find_torch_python() {
  local candidate
  for candidate in ${EBBTIDE_PYTHON:-"$VENV/bin/python" python3 python}; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    if "$candidate" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)'; then
      command -v "$candidate"
      return
    fi
  done
  fail "no Python with torch found: set EBBTIDE_PYTHON to one"
}

find_header() {
  echo "#include <$1>" | ${CXX:-c++} -std=c++20 -fsyntax-only -x c++ - >/dev/null 2>&1
}
