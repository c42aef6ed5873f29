"""What another user of the machine tries, run as root with the server's ports, home and passwords as JSON; prints what it got.

A program of its own, for it changes its user for good; everything is loaded before, for the user may read nothing of ours.
"""

import base64
import contextlib
import encodings.idna  # noqa: F401
import http.client
import json
import os
import socket
import struct
import sys
from pathlib import Path

import grpc

told = json.loads(sys.argv[1])
with grpc.insecure_channel("127.0.0.1:9") as channel, contextlib.suppress(grpc.RpcError):  # loads what it loads late
    channel.unary_unary("/warm/up")(b"", timeout=0.2)
os.setgroups([])
os.setgid(told["user"])
os.setuid(told["user"])

readable, answers = [], {}
for path in told["paths"]:
    with contextlib.suppress(OSError):
        readable.append([path, len(Path(path).read_bytes())])
for path in told["folders"]:
    with contextlib.suppress(OSError):
        readable.append([path, os.listdir(path)])
of_process = Path(f"/proc/{told['pid']}")
for name, look in {"environ": Path.read_bytes, "maps": Path.read_bytes, "fd": os.listdir, "cwd": os.readlink, "root": os.readlink}.items():
    with contextlib.suppress(OSError):
        readable.append([name, str(look(of_process / name))])
with contextlib.suppress(PermissionError):
    os.kill(told["pid"], 0)
    readable.append("it could be killed")


def ask(port: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", told["ports"][port], timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (ConnectionError, http.client.HTTPException) as error:
        return 0, type(error).__name__
    finally:
        connection.close()


otlp = told["otlp"].encode()
answers["otlp json"] = ask("otlp_http", "POST", "/v1/logs", otlp, Content_Type="application/json")
answers["health"] = ask("health", "GET", "/")
answers["metrics"] = ask("metrics", "GET", "/metrics")
answers["ping"] = ask("clickhouse", "GET", "/ping")
answers["read"] = ask("clickhouse", "GET", "/?query=SELECT+1")
for user, password in told["users"].items():
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    answers[f"read as {user}"] = ask("clickhouse", "GET", "/?query=SELECT+1", Authorization=f"Basic {basic}")
    sql = b"INSERT INTO session_context (session_id) VALUES ('stranger')"
    answers[f"write as {user}"] = ask("clickhouse", "POST", "/", sql, Authorization=f"Basic {basic}")
with grpc.insecure_channel(f"127.0.0.1:{told['ports']['otlp_grpc']}") as channel:
    try:
        channel.unary_unary(told["method"])(base64.b64decode(told["protobuf"]), timeout=10)
        answers["grpc"] = (0, "OK")
    except grpc.RpcError as error:
        answers["grpc"] = (error.code().value[0], error.code().name)

# Sent whole and closed at once, orderly and not, so that nobody is there to be asked about.
head = f"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(otlp)}\r\n\r\n"
for linger in (None, struct.pack("ii", 1, 0)):
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", told["ports"]["otlp_http"])) as sender:
            if linger:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            sender.sendall(head.encode() + otlp)
print(json.dumps({"readable": readable, "answers": answers}))
