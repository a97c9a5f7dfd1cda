#!/bin/bash
# poll.sh RUN: what the run says of itself, three times a second until it has ended, with the time at which it was asked.
while :; do
  asked=$(date +%s.%3N)
  # While the daemon is down there is no answer.
  if run=$(tidegate runs get "$1" -o jsonl 2>/dev/null); then
    echo "{\"asked\":$asked,\"run\":$run}"
    case $run in *RUN_STATE_FINISHED*) exit ;; esac
  fi
  sleep 0.3
done
