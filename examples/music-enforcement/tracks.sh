#!/bin/bash
# tracks.sh N: N tracks of blocked artists in the libraries at four services, one job a line. 620 are at YouTube,
# which takes one track a call.
set -euo pipefail
awk -v tracks="${1:?expected: tracks.sh N}" 'BEGIN {
  for (n = 1; n <= tracks; n++) {
    at = n % 16
    provider = at == 0 && n <= 9920 ? "youtube" : at > 0 && at < 8 ? "spotify" : at > 0 && at < 11 ? "apple" : "tidal"
    # Five of ten thousand are not in the library any more: the service refuses them whatever one does.
    id = provider "-" n (n % 2000 == 1 ? "-gone" : "")
    printf "{\"provider\":\"%s\",\"operation\":\"remove_track\",\"key\":\"%s\",\"payload\":{\"id\":\"%s\"}}\n", provider, id, id
  }
}'
