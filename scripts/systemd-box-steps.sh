#!/bin/bash
# What systemd-box-test.sh walks through inside the box. Ends at the first step that does not hold.
set -euo pipefail
export TIDEGATE_ADDR=unix:/run/tidegate/tidegate.sock
provider=/etc/tidegate/providers.d/crm.toml

step() { echo "step: $*"; }
die() { echo "FAILED: $*" >&2; exit 1; }
field() { systemctl show tidegate --property="$1" --value; }
# Waits for a condition, a minute at most.
until_true() {
  local what=$1
  shift
  for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done
  die "$what did not come about"
}
revision() { tidegate providers list -o jsonl | sed -n 's/.*"revision":"\([0-9]*\)".*/\1/p'; }
ready() { exec 3<>/dev/tcp/127.0.0.1/7071; printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3; head -1 <&3 | grep -q ' 200 '; }

declare_provider() {
  cat >"$provider" <<TOML
[providers.crm]
base_url = "http://127.0.0.1:9"
allow_private = true
auth = { bearer = { credential = "crm_key" } }
[providers.crm.operations.ping]
request = "PUT /ping/{key}"
limits = ["$1/h"]
TOML
}

step "user, folders and a secret as a credential"
systemd-sysusers
systemd-tmpfiles --create tidegate.conf
declare_provider 10
printf 'canary-7f3a' >/etc/tidegate/secrets/crm_key
chmod 600 /etc/tidegate/secrets/crm_key
mkdir -p /etc/systemd/system/tidegate.service.d
printf '[Service]\nLoadCredential=crm_key:/etc/tidegate/secrets/crm_key\n' >/etc/systemd/system/tidegate.service.d/secret.conf
systemctl daemon-reload

step "start: ready when jobs are accepted"
systemctl start tidegate || die "start"
[ "$(field ActiveState)" = active ] || die "not active"
until_true "readiness" ready
field StatusText | grep -q 'jobs waiting' || die "no status line: $(field StatusText)"
tidegate workers -o name >/dev/null || die "the socket does not answer"
job=$(tidegate enqueue crm/ping --key a --delay 1h -o name) || die "enqueue"

step "reload: in force, same process"
pid=$(field MainPID) before=$(revision)
declare_provider 20
systemctl reload tidegate || die "reload"
[ "$(field MainPID)" = "$pid" ] || die "another process after a reload"
[ "$(revision)" -gt "$before" ] || die "the revision is still $before"

step "bad reload: refused, said, nothing changed"
before=$(revision)
echo 'limts = 3' >>"$provider"
! systemctl reload tidegate 2>/dev/null || die "a bad configuration was taken"
[ "$(field ActiveState)" = active ] && [ "$(field MainPID)" = "$pid" ] || die "a bad reload stopped the daemon"
[ "$(revision)" = "$before" ] || die "a bad reload changed something"
journalctl -u tidegate --no-pager -o cat | grep -q 'limts' || die "the journal does not say what is wrong"
declare_provider 20
systemctl reload tidegate || die "reload after repair"

step "kill -9: comes back with its jobs"
systemctl kill --kill-who=main -s KILL tidegate
back() { [ "$(field ActiveState)" = active ] && [ "$(field MainPID)" != "$pid" ] && [ "$(field MainPID)" != 0 ]; }
until_true "the restart" back
tidegate jobs get "$job" -o name | grep -q "$job" || die "the job is gone"

step "watchdog: a process that hangs is replaced"
printf '[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n' >/etc/systemd/system/tidegate.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart tidegate
pid=$(field MainPID)
kill -STOP "$pid"
until_true "the watchdog's restart" back
journalctl -u tidegate --no-pager -o cat | grep -qi 'watchdog timeout' || die "no word of the watchdog"
rm /etc/systemd/system/tidegate.service.d/watchdog.conf
systemctl daemon-reload

step "stop: clean, the database stays, the socket goes"
systemctl restart tidegate
systemctl stop tidegate || die "stop"
[ "$(field Result)" = success ] || die "result $(field Result)"
[ -s /var/lib/tidegate/tidegate.db ] || die "the database is gone"
[ ! -e /run/tidegate ] || die "the runtime folder stays"

step "a wrong configuration at the start: 78, and no loop"
echo 'limts = 3' >>"$provider"
! systemctl start tidegate 2>/dev/null || die "started with a wrong configuration"
[ "$(field ExecMainStatus)" = 78 ] || die "exit code $(field ExecMainStatus)"
[ "$(field NRestarts)" = 0 ] || die "started again"

step "no secret in the journal, or in the database"
! journalctl --no-pager -o json | grep -q canary-7f3a || die "the secret is in the journal"
! grep -q canary-7f3a /var/lib/tidegate/* || die "the secret is in the database"
echo "all steps hold"
