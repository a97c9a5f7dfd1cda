#!/bin/bash
# `test.sh` runs everything; `test.sh lint` stops before the tests. Each step prints its name and its seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
# The tools were just made sure of: a test that misses one fails, where elsewhere it says so and is left out.
export TIDEGATE_TOOLS=required

step() {
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  "$@" || { echo "== $name: FAILED" >&2; exit 1; }
  echo "== $name: ok, $((SECONDS - start)) s"
}

protos() { target/tools/node_modules/.bin/buf lint; }
documentation() { RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet; }

# Two runners, one count: nextest when it is there, since it runs tests in parallel processes.
tests() {
  local log=target/test.log
  if command -v cargo-nextest >/dev/null; then
    cargo nextest run --no-fail-fast "$@" 2>&1 | tee "$log"
    cargo test --doc --quiet
  else
    cargo test --no-fail-fast "$@" 2>&1 | tee "$log"
  fi
}

count() {
  if grep -q '^ *Summary \[' target/test.log; then
    grep '^ *Summary \[' target/test.log | sed 's/^ *Summary/tests:/'
  else
    awk '/^test result:/ {p += $4; f += $6; i += $8} END {print "tests: " p " passed, " f " failed, " i " ignored"}' target/test.log
  fi
}

step "tools" scripts/need.sh test
step "format" cargo fmt --check
step "clippy" cargo clippy --quiet --all-targets -- -D warnings
step "documentation" documentation
step "protos" protos
if [ "$what" = lint ]; then
  step "laws of the house" cargo test --quiet --test tidy
  exit 0
fi
# The servers that the tests start are ours to stop, whatever happens.
trap 'scripts/servers.sh stop' EXIT
step "tests" tests
count
export TIDEGATE_REDIS_SERVER=$PWD/target/tools/valkey-server
step "the shared limiter on Valkey" cargo test --quiet --test it -- \
  limits::suite::redis limits::vectors limits::same limits::loss limits::redis
