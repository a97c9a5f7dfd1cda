#!/bin/bash
# The long form of the tests that attack the promises: 100 kills and 20 power cuts under load, 200 faults of a cluster,
# judged by the history checker, and then the checker's own test: every planted bug must be caught. Arguments go to the test runner.
set -euo pipefail
cd "$(dirname "$0")/.."
export TIDEGATE_TORTURE_ROUNDS=${TIDEGATE_TORTURE_ROUNDS:-100} TIDEGATE_POWER_CUTS=${TIDEGATE_POWER_CUTS:-20}

echo "== kills: $TIDEGATE_TORTURE_ROUNDS, power cuts: $TIDEGATE_POWER_CUTS"
cargo test --test it torture -- --nocapture --test-threads 1 "$@"
cargo test --test it powercut -- --nocapture --test-threads 1 "$@"
echo "== three daemons that share, ${TIDEGATE_CLUSTER_ROUNDS:=200} faults of daemons, PostgreSQL, Redis, network and clocks"
trap 'scripts/servers.sh stop' EXIT
TIDEGATE_TORTURE_ROUNDS=$TIDEGATE_CLUSTER_ROUNDS cargo test --test it cluster::nothing_is_lost -- --nocapture "$@"

# The same crate with its planted bugs, all asleep but the one that a test wakes. The dependencies are shared; the next
# ordinary build puts the ordinary program back.
echo "== planted bugs: each must be caught"
unset TIDEGATE_TORTURE_ROUNDS TIDEGATE_POWER_CUTS
cargo test --features mutants --test it mutants -- --test-threads 1 "$@"
