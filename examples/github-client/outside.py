#!/usr/bin/env python3
"""A program that makes its own calls "within limit": it asks Tidegate's PermitService (here by REST) before them.

    outside.py N        makes N calls
"""

import json
import sys
import urllib.error
import urllib.request

TIDEGATE = "http://127.0.0.1:7071/api/v1"
GITHUB = "http://127.0.0.1:8080"


def post(path, body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(TIDEGATE + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def call(n):
    request = urllib.request.Request(f"{GITHUB}/outside/{n}", headers={"Authorization": "Bearer ghp_example"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


calls, made, refused = int(sys.argv[1]), 0, 0
while made < calls:
    grant = post("/permits:acquire", {"provider": "github", "minCount": 1, "maxCount": min(10, calls - made), "wait": "20s"})
    granted = grant.get("grantedCount", 0)
    for _ in range(granted):
        status, headers = call(made)
        made, refused = made + 1, refused + (status != 200)
    if granted:
        # What was left and what was refused is everybody's business.
        seen = [{"name": name, "value": value} for name, value in headers.items()]
        post("/permits:settle", {"token": grant["token"], "sentCount": granted, "status": status, "headers": seen})
print(f"{made} calls made by the outside program, {refused} refused")
