"""In a network of its own, which joins another: who reaches the listeners of a server. Prints it as JSON."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

REACHED = """
import json, socket, sys

def reached(address, port):
    try:
        with socket.create_connection((address, port), timeout=2):
            return True
    except OSError as error:
        return type(error).__name__
"""
exec(REACHED)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def main(home: Path) -> None:
    from tests.server import server

    ip("link", "set", "lo", "up")
    outside = subprocess.Popen(["unshare", "--net", "sleep", "100"])
    try:
        while os.readlink(f"/proc/{outside.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            time.sleep(0.01)
        there = ["nsenter", "--net", "--target", str(outside.pid)]
        ip("link", "add", "inner", "type", "veth", "peer", "name", "outer")
        ip("link", "set", "outer", "netns", str(outside.pid))
        ip("addr", "add", "198.51.100.1/24", "dev", "inner")
        ip("addr", "add", "2001:db8::1/64", "dev", "inner", "nodad")
        ip("link", "set", "inner", "up")
        subprocess.run([*there, "ip", "addr", "add", "198.51.100.2/24", "dev", "outer"], check=True)
        subprocess.run([*there, "ip", "link", "set", "outer", "up"], check=True)
        with server(home) as started, socket.create_server(("0.0.0.0", 0)) as open_to_all:
            ports = {**started.ports, "control": open_to_all.getsockname()[1]}
            ask = REACHED + "print(json.dumps({n: reached('198.51.100.1', p) for n, p in json.loads(sys.argv[1]).items()}))"
            done = subprocess.run([*there, sys.executable, "-c", ask, json.dumps(ports)], capture_output=True, text=True, check=True)
            hosts = {"own": "198.51.100.1", "own6": "2001:db8::1", "loopback": "127.0.0.1", "loopback6": "::1", "localhost": "localhost"}
            here = {where: {name: reached(host, port) for name, port in ports.items()} for where, host in hosts.items()}  # noqa: F821
            print(json.dumps({"outside": json.loads(done.stdout), **here}))
    finally:
        outside.kill()
        outside.wait()


main(Path(sys.argv[1]))
