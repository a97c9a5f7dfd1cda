#!/usr/bin/env python3
"""Uses Tidegate from Python, with stubs generated from proto/. See README.md beside it."""

import argparse
import importlib
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROVIDER = "pycheck"


class Broken(Exception):
    """A promise was not kept."""


def expect(holds, what):
    if not holds:
        raise Broken(what)


def stubs(folder):
    """Generates the stubs into `folder` and imports them."""
    from grpc_tools import protoc

    files = sorted(str(p) for p in (ROOT / "proto/tidegate/v1").glob("*.proto"))
    well_known = str(pathlib.Path(importlib.import_module("grpc_tools").__file__).parent / "_proto")
    code = protoc.main(
        ["protoc", f"-I{ROOT / 'proto'}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
        + files
    )
    if code != 0:
        raise RuntimeError(f"protoc ended with {code}")
    sys.path.insert(0, folder)
    messages = ["common_pb2", "job_pb2", "provider_pb2", "admin_pb2", "permit_pb2", "worker_pb2"]
    names = messages + [f"{name}_grpc" for name in messages[1:]]
    return {name: importlib.import_module(f"tidegate.v1.{name}") for name in names}


class Client:
    def __init__(self, address, timeout, modules):
        import grpc

        self.grpc, self.address, self.timeout = grpc, address, timeout
        self.job, self.provider, self.admin = modules["job_pb2"], modules["provider_pb2"], modules["admin_pb2"]
        # A restarted daemon is to be found within a second, not after grpc's two minutes.
        options = [("grpc.max_reconnect_backoff_ms", 1000), ("grpc.initial_reconnect_backoff_ms", 100)]
        self.channel = grpc.insecure_channel(address, options=options)
        self.jobs = modules["job_pb2_grpc"].JobServiceStub(self.channel)
        self.providers = modules["provider_pb2_grpc"].ProviderServiceStub(self.channel)
        self.admins = modules["admin_pb2_grpc"].AdminServiceStub(self.channel)

    def up(self):
        """Waits until the daemon answers. The first call after a restart may still meet the connection that died."""
        for tries_left in reversed(range(5)):
            try:
                request = self.admin.GetDaemonRequest()
                return self.admins.GetDaemon(request, timeout=self.timeout, wait_for_ready=True).daemon
            except self.grpc.RpcError as error:
                if error.code() != self.grpc.StatusCode.UNAVAILABLE or tries_left == 0:
                    raise

    def spec(self, n, key):
        return self.job.JobSpec(
            provider=PROVIDER, operation="ping", key=f"{key}-{n}", payload=f'{{"n": {n}}}', labels={"check": key}
        )

    def declare(self, url):
        source = f"""
[providers.{PROVIDER}]
base_url = "{url}"
allow_private = true

[providers.{PROVIDER}.operations.ping]
request = "PUT /ping"
body = "{{payload}}"
"""
        self.providers.ApplyProvider(self.provider.ApplyProviderRequest(source=source), timeout=self.timeout)


class Watch:
    """A watch that runs in a thread and keeps its last token."""

    def __init__(self, client, check, token=""):
        request = client.job.WatchJobsRequest(filter=f'labels.check = "{check}"', resume_token=token)
        self.client, self.token, self.events = client, token, queue.Queue()
        self.call = client.jobs.WatchJobs(request, wait_for_ready=True)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            for told in self.call:
                if told.WhichOneof("item") == "event":
                    self.events.put((told.resume_token, told.event))
                else:
                    self.token = told.resume_token or self.token
        except self.client.grpc.RpcError as error:
            self.events.put((None, error))

    def settle(self, ids, final):
        """Reads until each of `ids` has reached one of the states; returns the states. Ends early with the stream."""
        states, last, until = {}, 0, time.monotonic() + self.client.timeout
        while not all(states.get(i) in final for i in ids):
            try:
                token, event = self.events.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                missing = [i for i in ids if states.get(i) not in final]
                raise Broken(f"{len(missing)} jobs were not told to their end, as {missing[0]}") from None
            if token is None:
                return states, event
            expect(event.sequence >= last, f"event {event.sequence} came after {last}")
            last, self.token = event.sequence, token
            states[event.job.id] = event.state
        return states, None

    def end(self):
        self.call.cancel()
        self.thread.join()


def refusal(client):
    """5: a wrong value is refused, and the field is named."""
    from google.rpc import error_details_pb2, status_pb2

    try:
        bad = client.job.JobSpec(provider=PROVIDER, operation="ping", payload="{")
        client.jobs.EnqueueJob(client.job.EnqueueJobRequest(job=bad), timeout=client.timeout)
    except client.grpc.RpcError as error:
        expect(error.code() == client.grpc.StatusCode.INVALID_ARGUMENT, f"got {error.code()}")
        packed = dict(error.trailing_metadata()).get("grpc-status-details-bin")
        info, wrong = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in status_pb2.Status.FromString(packed).details:
            detail.Unpack(info) or detail.Unpack(wrong)
        expect((info.domain, info.reason) == ("tidegate", "PAYLOAD_NOT_JSON"), f"ErrorInfo is {info}")
        expect(wrong.field_violations[0].field == "job.payload", f"BadRequest is {wrong}")
    else:
        raise Broken("a payload that is not JSON was accepted")


def enqueue(client, check, count):
    """1 and 2: every job is acknowledged, repeats get the same ids. Returns the ids."""
    half = count // 2
    request = client.job.EnqueueJobsRequest(jobs=[client.spec(n, check) for n in range(half)], request_id=check)
    first = client.jobs.EnqueueJobs(request, timeout=client.timeout)
    again = client.jobs.EnqueueJobs(request, timeout=client.timeout)
    ids = [result.enqueued.job_id for result in first.results]
    expect(first.accepted_count == half and all(ids), "not all jobs were accepted")
    expect(ids == [result.enqueued.job_id for result in again.results], "a repeated request made other jobs")

    sizes = [10] * ((count - half) // 10)
    numbers = iter(range(half, count))
    messages = [
        client.job.EnqueueStreamRequest(sequence=i, jobs=[client.spec(next(numbers), check) for _ in range(size)])
        for i, size in enumerate(sizes, 1)
    ]
    acks = list(client.jobs.EnqueueStream(iter(messages), timeout=client.timeout))
    expect([ack.sequence for ack in acks] == [m.sequence for m in messages], "acks are missing or out of order")
    return ids + [result.enqueued.job_id for ack in acks for result in ack.results]


def run(args, modules):
    client = Client(args.address, args.timeout, modules)
    daemon = client.up()
    print(f"daemon {daemon.version} on {daemon.store.kind}, {daemon.store.durability}")
    client.declare(args.provider_url or "http://127.0.0.1:9")
    state = client.job
    final = {state.JOB_STATE_DELIVERED, state.JOB_STATE_DEAD, state.JOB_STATE_CANCELLED, state.JOB_STATE_UNKNOWN}
    # Without a provider a job is tried and waits for its next try.
    wanted = final if args.provider_url else final | {state.JOB_STATE_CALLING, state.JOB_STATE_WAITING}
    refusal(client)
    print("wrong values are refused with their field")

    check = f"check-{time.time_ns()}"
    watch = Watch(client, check)
    ids = enqueue(client, check, args.jobs)
    states, error = watch.settle(ids, wanted)
    expect(error is None, f"the watch ended: {error}")
    if args.provider_url:
        lost = [i for i in ids if states[i] != state.JOB_STATE_DELIVERED]
        expect(not lost, f"{len(lost)} jobs were not delivered, as {lost[:1]}")
    print(f"{len(ids)} jobs acknowledged and watched")

    if args.restart_command is None:
        print("no --restart-command: the restart was not checked")
        watch.end()
        return
    client.providers.PauseProvider(client.provider.PauseProviderRequest(name=PROVIDER), timeout=client.timeout)
    ids += more(client, check, args.jobs)
    token = watch.token
    before = client.up().pid
    subprocess.run(args.restart_command, shell=True, check=True)
    watch.end()
    daemon = client.up()
    expect(daemon.pid != before, "the daemon did not restart")
    for job_id in ids:
        client.jobs.GetJob(client.job.GetJobRequest(job_id=job_id), timeout=client.timeout, wait_for_ready=True)
    watch = Watch(client, check, token)
    client.providers.ResumeProvider(client.provider.ResumeProviderRequest(name=PROVIDER), timeout=client.timeout)
    waiting = ids[-args.jobs :]
    _, error = watch.settle(waiting, wanted)
    expect(error is None, f"the resumed watch ended: {error}")
    watch.end()
    print(f"after the restart: {len(ids)} jobs are there, and the watch went on where it was")


def more(client, check, count):
    jobs = [client.spec(n, f"{check}-more") for n in range(count)]
    for job in jobs:
        job.labels["check"] = check
    answer = client.jobs.EnqueueJobs(client.job.EnqueueJobsRequest(jobs=jobs), timeout=client.timeout)
    expect(answer.accepted_count == count, "not all jobs were accepted")
    return [result.enqueued.job_id for result in answer.results]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--provider-url")
    parser.add_argument("--restart-command")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--timeout", type=float, default=60.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            modules = stubs(folder)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is nothing to check with
            print(f"cannot generate the stubs: {error}", file=sys.stderr)
            return 2
        try:
            run(args, modules)
        except Broken as error:
            print(f"broken: {error}", file=sys.stderr)
            return 1
        except Exception as error:  # noqa: BLE001 - an RPC that failed for good
            print(f"failed: {error}", file=sys.stderr)
            return 2
    print("all held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
