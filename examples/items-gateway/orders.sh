#!/bin/bash
# orders.sh N: puts N orders of 200 customers, spread over the last 60 days.
set -euo pipefail
url=http://127.0.0.1:7071/api/v1/collections/orders/records:batch
awk -v orders="${1:?expected: orders.sh N}" -v now="$(date +%s)" 'BEGIN {
  split("open paid sent returned", status, " ")
  for (n = 1; n <= orders; n++) {
    printf "%s{\"id\":\"o%d\",\"data\":{\"customer\":\"c%d\",\"status\":\"%s\",", separator, n, n * n % 200, status[n % 4 + 1]
    printf "\"amount\":%d.%02d,\"created_at\":%d}}", n % 90 + 10, n % 100, now - n % 60 * 86400
    separator = ","
    if (n % 1000 == 0 || n == orders) { print ""; separator = "" }
  }
}' | while read -r records; do
  curl -fsS "$url" -H 'Content-Type: application/json' -d @- -o /dev/null <<<"{\"records\":[$records]}"
done
echo "$1 orders were put"
