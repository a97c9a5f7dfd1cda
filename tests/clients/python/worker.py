#!/usr/bin/env python3
"""A worker: takes jobs of an external operation from Tidegate, and does them. See README.md beside it."""

import argparse
import json
import os
import queue
import tempfile
import threading
import time

from check import stubs


class Worker:
    def __init__(self, args, modules):
        self.args, self.pb = args, modules["worker_pb2"]
        self.service = modules["worker_pb2_grpc"].WorkerServiceStub
        # What it has and what became of it: None while it works, else what is to be said of it.
        self.leases, self.lock, self.says = {}, threading.Lock(), None
        self.cancelled = set()

    def run(self):
        import grpc

        addresses, turn = self.args.address.split(","), 0
        while True:
            channel = grpc.insecure_channel(addresses[turn % len(addresses)])
            try:
                self.stream(self.service(channel))
            except grpc.RpcError as error:
                print(f"the stream ended: {error.code().name} {error.details()}", flush=True)
            finally:
                channel.close()
            # The next one, should it be dead.
            turn += 1
            time.sleep(0.2)

    def stream(self, service):
        """One stream, until it breaks. What is still worked on goes on with the next one."""
        says = self.says = queue.Queue()
        with self.lock:
            tokens = list(self.leases)
        hello = self.pb.WorkerHello(
            name=f"python {os.getpid()}", operations=[self.args.operation], seats=self.args.seats, resume_tokens=tokens
        )
        says.put(self.pb.WorkRequest(hello=hello))
        told = service.Work(iter(says.get, None))
        try:
            for message in told:
                self.hear(message, says)
        finally:
            # Ends the heartbeat and the request.
            says.put(None)

    def hear(self, message, says):
        what = message.WhichOneof("what")
        if what == "welcome":
            pause = message.welcome.heartbeat_interval.ToTimedelta().total_seconds()
            threading.Thread(target=self.beat, args=(says, pause), daemon=True).start()
            with self.lock:
                # What was done while nobody could be told.
                for word in [word for word in self.leases.values() if word]:
                    says.put(word)
        elif what == "job":
            with self.lock:
                self.leases[message.job.token] = None
            threading.Thread(target=self.work, args=(message.job,), daemon=True).start()
        elif what == "cancel":
            # `work` looks at it between two steps.
            self.cancelled.add(message.cancel.token)
        elif what == "ended":
            with self.lock:
                self.leases.pop(message.ended.token, None)
                self.cancelled.discard(message.ended.token)
            if not message.ended.recorded:
                print(f"a lease was lost: {message.ended.reason}", flush=True)

    def beat(self, says, pause):
        while self.says is says:
            says.put(self.pb.WorkRequest(heartbeat=self.pb.WorkerHeartbeat()))
            time.sleep(pause)

    def work(self, job):
        payload = json.loads(job.payload)
        for step in range(2):
            self.say(self.pb.WorkRequest(progress=self.pb.WorkerProgress(token=job.token, fraction=step / 2)))
            time.sleep(payload.get("seconds", 0) / 2)
            if job.token in self.cancelled:
                failed = self.pb.JobFailed(token=job.token, reason="called off")
                return self.settle(job.token, self.pb.WorkRequest(failed=failed))
        if self.args.diary:
            with open(self.args.diary, "a") as diary:
                diary.write(f"{payload.get('n')}\n")
        done = self.pb.JobCompleted(token=job.token, result=json.dumps({"by": os.getpid()}))
        self.settle(job.token, self.pb.WorkRequest(completed=done))

    def settle(self, token, word):
        with self.lock:
            if token in self.leases:
                self.leases[token] = word
        self.say(word)

    def say(self, word):
        self.says.put(word)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:7070", help="of the daemon; with several: of all, joined by commas")
    parser.add_argument("--operation", required=True, help="PROVIDER/OPERATION, an external one")
    parser.add_argument("--seats", type=int, default=1, help="jobs at a time")
    parser.add_argument("--diary", help="a file that gets the payload's `n` of every job that was done")
    with tempfile.TemporaryDirectory() as folder:
        Worker(parser.parse_args(), stubs(folder)).run()
