#!/bin/bash
# changes.sh N [SECONDS] [USERS]: N times, changes 20 users, evenly spread over SECONDS (default 0: at once), and prints the
# calls that are used and left. The users are drawn from USERS (default 25,000) that are there or are made.
set -euo pipefail
changes=$((${1:?expected: changes.sh N [SECONDS] [USERS]} * 20)) seconds=${2:-0} users=${3:-25000}
url=http://127.0.0.1:7071/api/v1/collections/users/records:batch
size=$((seconds > 0 ? 100 : 1000)) sent=0
now() { now=${EPOCHREALTIME/[.,]/}; }
now && start=$now

# A line for each request. A revision grows with every change of a user; whoever looks for lost ones compares it.
requests() {
  awk -v changes="$changes" -v users="$users" -v size="$size" -v base="$(date +%s)" 'BEGIN {
    srand(base)
    for (n = 1; n <= changes; n++) {
      id = "user-" 1 + int(rand() * users)
      printf "%s{\"id\":\"%s\",\"data\":{\"id\":\"%s\",\"email\":\"%s@example.com\",", separator, id, id, id
      printf "\"name\":\"Name %d\",\"time_zone\":\"Europe/Paris\",\"revision\":%s%06d}}", n, base, n
      separator = ","
      if (n % size == 0 || n == changes) { print ""; separator = "" }
    }
  }'
}

while read -r records; do
  curl -fsS "$url" -H 'Content-Type: application/json' -d @- -o /dev/null <<<"{\"records\":[$records]}"
  sent=$((sent + size))
  # The next one is due after its share of the time.
  now && wait=$((start + seconds * 1000000 * sent / changes - now))
  if ((wait > 0)); then sleep "$(printf '%d.%06d' $((wait / 1000000)) $((wait % 1000000)))"; fi
done < <(requests)
echo "$changes changes were saved"
tidegate limits list marketing
