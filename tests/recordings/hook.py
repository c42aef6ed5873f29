#!/usr/bin/env python3
"""What a hook could have seen: appends one line for each call to ~/.hooks.jsonl.

Recorded beside the telemetry, so the attribution of cost can be tested without running the client again.
"""

import json
import os
import subprocess
import sys
import time


def git(cwd, *args):
    done = subprocess.run(["git", *args], cwd=cwd, capture_output=True, text=True)
    return done.stdout.strip() or None if done.returncode == 0 else None


def main():
    at = time.time_ns()
    event = json.load(sys.stdin)
    cwd = event.get("cwd") or os.getcwd()
    tool = event.get("tool_input") or {}
    prompt = (event.get("prompt") or "").lstrip()
    line = {
        "at_ns": at,
        "session_id": event.get("session_id"),
        "event": event.get("hook_event_name"),
        "cwd": cwd,
        "tool_name": event.get("tool_name"),
        "file_path": tool.get("file_path"),
        "prompt_command": prompt.split()[0].lstrip("/") if prompt.startswith("/") else None,
        "git_branch": git(cwd, "symbolic-ref", "--quiet", "--short", "HEAD"),
        "git_head": git(cwd, "rev-parse", "HEAD"),
        "git_toplevel": git(cwd, "rev-parse", "--show-toplevel"),
        "prompt_id": event.get("prompt_id"),
        "tool_use_id": event.get("tool_use_id"),
        "agent_id": event.get("agent_id"),
        "source": event.get("source"),
    }
    # One write, so that hooks that run at once do not mix their lines.
    log = os.open(os.path.expanduser("~/.hooks.jsonl"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(log, (json.dumps(line) + "\n").encode())
    os.close(log)


main()
