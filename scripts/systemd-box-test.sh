#!/bin/bash
# Runs the daemon under a real systemd: boots one as process 1 in namespaces of its own, on a small Debian in memory,
# and walks through scripts/systemd-box-steps.sh. Nothing of the machine is changed but a cached root file system.
#
#   systemd-box-test.sh BINARY     0: all steps hold. 77: cannot be done here, and why. Else: a step failed.
set -euo pipefail

skip() { echo "skipped: $*"; exit 77; }
fail() { echo "systemd-box-test: $*" >&2; exit 1; }

# ---- inside: process 1 of the box, before systemd takes over ---------------------------------------------------------
if [ "${1:-}" = --become-init ]; then
  base=$2 work=$3
  mount --make-rprivate /
  mount -t tmpfs -o size=1g,mode=755 tmpfs "$work"
  mkdir "$work"/{changes,scratch,root}
  root=$work/root
  mount -t overlay -o "lowerdir=$base,upperdir=$work/changes,workdir=$work/scratch" overlay "$root"
  bash "$work.payload/fill.sh" "$root"
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
  done
  mkdir "$root/dev/shm" "$root/dev/pts"
  mount -t tmpfs tmpfs "$root/dev/shm"
  # PrivateDevices= looks for both.
  mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  mount -t tmpfs tmpfs "$root/tmp"
  ip link set lo up 2>/dev/null || true
  mkdir -p "$root/old"
  cd "$root"
  pivot_root . old
  cd /
  umount -l /old
  mount --make-rshared /
  exec env -i container=tidegate-box PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --show-status=no </dev/null
fi

# ---- outside ---------------------------------------------------------------------------------------------------------
binary=$(realpath "${1:?usage: systemd-box-test.sh BINARY}")
here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] || skip "a systemd of its own needs root"
command -v unshare nsenter pivot_root >/dev/null || skip "util-linux is missing"
cgroup=/sys/fs/cgroup
[ -e $cgroup/cgroup.procs ] || cgroup=$cgroup/unified
[ -w $cgroup/cgroup.procs ] || skip "no writable cgroup2 here"
unshare --mount --pid --fork true 2>/dev/null || skip "namespaces are not allowed here"

# A root file system with systemd and little else; made once.
base=${TIDEGATE_BOX_CACHE:-/var/cache/tidegate-box}/${TIDEGATE_BOX_SUITE:-bookworm}-2
if [ ! -e "$base/complete" ]; then
  if ! command -v mmdebstrap >/dev/null; then
    apt-get install -qqy --no-install-recommends mmdebstrap >/dev/null 2>&1 || skip "mmdebstrap is missing and cannot be installed"
  fi
  mkdir -p "$(dirname "$base")"
  rm -rf "$base"
  mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,libgcc-s1,iproute2 "${TIDEGATE_BOX_SUITE:-bookworm}" "$base" 2>/dev/null ||
    skip "mmdebstrap could not make a root file system (no Debian mirror?)"
  # Nothing that waits for a console or for hardware.
  for unit in getty.target console-getty.service systemd-udevd.service systemd-udev-trigger.service; do
    ln -sf /dev/null "$base/etc/systemd/system/$unit"
  done
  : >"$base/complete"
fi

work=$(mktemp -d /tmp/tidegate-box.XXXXXX)
mkdir "$work.payload"
cat >"$work.payload/fill.sh" <<FILL
set -e
"$here/install-units.sh" "$binary" "\$1"
install -m 755 "$here/systemd-box-steps.sh" "\$1/root/steps.sh"
tr -d - </proc/sys/kernel/random/uuid >"\$1/etc/machine-id"
FILL
mkdir "$cgroup/$(basename "$work")"
launcher='' init=''
cleanup() {
  [ -z "$init" ] || kill -9 "$init" 2>/dev/null || true
  [ -z "$launcher" ] || wait "$launcher" 2>/dev/null || true
  # The kernel needs a moment to empty the groups of a dead box.
  for _ in $(seq 50); do
    find "$cgroup/$(basename "$work")" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [ -d "$cgroup/$(basename "$work")" ] || break
    sleep 0.1
  done
  rm -rf "$work" "$work.payload"
}
trap cleanup EXIT
(
  echo "$BASHPID" >"$cgroup/$(basename "$work")/cgroup.procs"
  exec unshare --mount --uts --ipc --net --cgroup --pid --fork --kill-child "$0" --become-init "$base" "$work"
) >"$work.payload/boot.log" 2>&1 &
launcher=$!

for _ in $(seq 300); do
  kill -0 "$launcher" 2>/dev/null || { cat "$work.payload/boot.log" >&2; fail "the box ended while it started"; }
  init=$(cat "/proc/$launcher/task/$launcher/children" 2>/dev/null | tr -d ' ')
  [ -n "$init" ] && [ -S "/proc/$init/root/run/systemd/private" ] && [ "$(cat "/proc/$init/comm")" = systemd ] && break
  sleep 0.1
done
inside() { nsenter --target "$init" --mount --uts --ipc --net --cgroup --pid --root --wd -- "$@"; }
for _ in $(seq 600); do
  case $(inside systemctl is-system-running 2>/dev/null || true) in running | degraded) break ;; esac
  sleep 0.2
done
if ! inside timeout 300 bash /root/steps.sh; then
  inside journalctl --no-pager -u tidegate -o short-precise -n 60 >&2 || true
  fail "a step failed under systemd"
fi
