#!/bin/bash
# Puts the binary and the systemd files below a folder: / on a real machine, the root of a box in tests.
# usage: install-units.sh BINARY [ROOT]
set -euo pipefail
binary=${1:?usage: install-units.sh BINARY [ROOT]}
root=${2:-}
here=$(cd "$(dirname "$0")/.." && pwd)
install -D -m 755 "$binary" "$root/usr/bin/tidegate"
install -D -m 644 "$here/systemd/tidegate.service" "$root/usr/lib/systemd/system/tidegate.service"
install -D -m 644 "$here/systemd/tidegate.sysusers" "$root/usr/lib/sysusers.d/tidegate.conf"
install -D -m 644 "$here/systemd/tidegate.tmpfiles" "$root/usr/lib/tmpfiles.d/tidegate.conf"
# A configuration that somebody changed stays.
[ -e "$root/etc/tidegate/tidegate.toml" ] || install -D -m 644 "$here/systemd/tidegate.toml" "$root/etc/tidegate/tidegate.toml"
# Examples to be copied: what makes a daemon one of many.
install -D -m 644 "$here/systemd/cluster.conf" "$root/usr/share/doc/tidegate/examples/cluster.conf"
