#!/usr/bin/env python3
"""Many requests at exactly one time.

    together.py N PATH        makes N requests POST PATH, each on a connection of its own

All connections are opened and all requests sent but for their last byte; when the last one is there, all get it. Prints the
answers, a line each; fails when one of them is not 2xx.
"""

import asyncio
import sys
import time

DAEMON = "127.0.0.1:7071"


async def main(count, path):
    host, port = DAEMON.split(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {DAEMON}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()

    async def hold():
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head[:-1])
        await writer.drain()
        return reader, writer

    async def let_go(reader, writer):
        writer.write(head[-1:])
        answer = await reader.read()
        writer.close()
        return answer.decode()

    held = await asyncio.gather(*(hold() for _ in range(count)))
    start = time.monotonic()
    answers = await asyncio.gather(*(let_go(reader, writer) for reader, writer in held))
    took = time.monotonic() - start
    bad = [answer for answer in answers if not answer.startswith("HTTP/1.1 2")]
    for answer in answers:
        print(answer.partition("\r\n\r\n")[2])
    print(f"{count} requests were open at one time, and answered within {took:.1f} s", file=sys.stderr)
    if bad:
        sys.exit(f"{len(bad)} were refused, the first one with {bad[0]!r}")


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
