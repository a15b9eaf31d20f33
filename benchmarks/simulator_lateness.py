"""How late the embedded endpoint is: p50 and p99 of send time less due time with many parallel streams.

    python benchmarks/simulator_lateness.py --streams 1000

Every stream has a fixed timeline of 20 ms per token. The client lives in a process of its own and only reads
and discards, so what is measured is the endpoint. Both should have a core each.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import selectors
import socket
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

from pacemark.simulator import serving


def keep_reading(host: str, port: int, model: str, streams: int, seconds: float) -> None:
    """Hold `streams` answers open for `seconds`, their starts spread over the first second."""
    tokens = int((seconds + 5) / 0.02)
    body = json.dumps(
        {"model": model, "messages": [{"role": "user", "content": "go"}], "max_tokens": tokens, "stream": True}
    )
    request = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    selector = selectors.DefaultSelector()
    sockets = [socket.create_connection((host, port)) for _ in range(streams)]
    start = time.monotonic()
    begun = 0
    while (now := time.monotonic() - start) < seconds:
        while begun < streams and now >= begun / streams:
            sockets[begun].sendall(request)
            selector.register(sockets[begun], selectors.EVENT_READ)
            begun += 1
        for key, _ in selector.select(0.001 if begun < streams else 0.02):
            os.read(key.fd, 65536)


def main() -> None:
    """Run it and print one line for each number of streams."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", default="64,512,1000", help="numbers of parallel streams")
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    print("streams  events/s  late p50 ms  p99 ms  max ms  endpoint CPU")
    for streams in (int(n) for n in given.streams.split(",")):
        with serving("fixed", itl_ms=20.0) as served:
            address = urlsplit(served.url)
            client = multiprocessing.Process(
                target=keep_reading, args=(address.hostname, address.port, served.model, streams, given.seconds + 2)
            )
            client.start()
            time.sleep(1.5)
            control = HTTPConnection(address.hostname or "", address.port)
            control.request("POST", "/lateness/reset")
            control.getresponse().read()
            before, cpu = time.monotonic(), _cpu_s(served.pid)
            time.sleep(given.seconds)
            control.request("GET", "/lateness")
            late = json.loads(control.getresponse().read())
            elapsed, cpu = time.monotonic() - before, _cpu_s(served.pid) - cpu
            client.join()
        print(
            f"{streams:7d}  {late['count'] / elapsed:8.0f}  {late['p50_ms']:11.2f}  {late['p99_ms']:6.2f}  "
            f"{late['max_ms']:6.2f}  {cpu / elapsed:11.0%}"
        )


def _cpu_s(pid: int) -> float:
    """User and system seconds of a process (proc(5), fields 14 and 15 of stat)."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
