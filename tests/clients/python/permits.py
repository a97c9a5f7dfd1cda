#!/usr/bin/env python3
"""A program that makes its own calls under limits that it shares with Tidegate's jobs. See README.md beside it."""

import argparse
import tempfile
import urllib.error
import urllib.request

from check import expect, stubs


def call(url, n):
    """One call of the program's own; status and headers of the answer."""
    request = urllib.request.Request(f"{url}/own/p{n}", data=f'{{"n": {n}}}'.encode(), method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers.items()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.items()


def run(args, modules):
    import grpc
    from google.protobuf.duration_pb2 import Duration

    permit = modules["permit_pb2"]
    permits = modules["permit_pb2_grpc"].PermitServiceStub(grpc.insecure_channel(args.address))
    made = 0
    while made < args.calls:
        ask = permit.AcquirePermitsRequest(provider=args.provider, method="PUT", max_count=5, wait=Duration(seconds=20))
        grant = permits.AcquirePermits(ask, timeout=30, wait_for_ready=True)
        if grant.granted_count == 0:
            # Another turn: the wait was over first.
            continue
        sent, status, headers = 0, 0, []
        for _ in range(min(grant.granted_count, args.calls - made)):
            status, headers = call(args.url, made)
            expect(status == 200, f"call {made} was answered with {status}")
            sent, made = sent + 1, made + 1
        headers = [permit.ObservedHeader(name=name, value=value) for name, value in headers]
        told = permit.SettlePermitsRequest(token=grant.token, sent_count=sent, status=status, headers=headers)
        expect(not permits.SettlePermits(told, timeout=30).already_settled, "a fresh grant was settled before")
        expect(permits.SettlePermits(told, timeout=30).already_settled, "a settle counted twice")
    print(f"{made} calls made, all within the limit")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:7070", help="of the daemon")
    parser.add_argument("--provider", required=True, help="whose limits the calls spend")
    parser.add_argument("--url", required=True, help="of the provider")
    parser.add_argument("--calls", type=int, default=20)
    with tempfile.TemporaryDirectory() as folder:
        run(parser.parse_args(), stubs(folder))
