"""Ordinary text, and how much of it the redaction patterns touch: each line touched is a false positive.

    PYTHONPATH=src python -m tests.store.corpus

Identifiers, versions and names are made up from a fixed seed; errors are those that the client, the API and common tools print; prose
and code are this repository's own lines, where what is meant to look like a secret is left out by file (tests, the patterns).
"""

# ruff: noqa: E501 - a sample is one line
from __future__ import annotations

import random
import re
import string
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

from sp_telemetry.privacy.patterns import PATTERNS
from sp_telemetry.privacy.redaction import array, one_line, redacted

ROOT = Path(__file__).resolve().parents[2]
HEX = "0123456789abcdef"
ERRORS = """
Overloaded
529 {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_011CSHoEeqs5C35K2UUqR7Fy"}
429 {"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's rate limit of 80,000 input tokens per minute."}}
prompt is too long: 210045 tokens > 200000 maximum
max_tokens: 64000 > 32000, which is the maximum allowed number of output tokens for claude-sonnet-5-5
messages.1.content.0.tool_result.content: Input should be a valid list
Request timed out. Check your internet connection and proxy settings
Connection error.
connect ECONNREFUSED 127.0.0.1:4318
getaddrinfo ENOTFOUND api.anthropic.com
Exit code 1
Exit code 127 bash: line 1: pytset: command not found
Command timed out after 2m 0.0s
File does not exist. Note: your current working directory is the repository's top.
File has not been read yet. Read it first before writing to it.
String to replace not found in file. String: ## Tokens
Found 3 matches of the string to replace, but replace_all is false.
InputValidationError: Read failed due to the following issue: The required parameter `file_path` is missing
Cannot read properties of undefined (reading 'length')
Unexpected token < in JSON at position 0
ENOENT: no such file or directory, open 'specs/017-usage-data-collection/spec.md'
EACCES: permission denied, mkdir '/usr/lib/node_modules/left-pad'
npm ERR! code ERESOLVE npm ERR! peer react@"^18.2.0" from @testing-library/react@14.0.0
error: Your local changes to the following files would be overwritten by checkout: book/05-part/33-agent-telemetry/chapter.md
fatal: not a git repository (or any of the parent directories): .git
! [rejected]        017-usage-data-collection -> 017-usage-data-collection (non-fast-forward)
Traceback (most recent call last): File "validate.py", line 33, in <module> KeyError: 'chapter'
AssertionError: assert 12.5 == 12.50001 +- 1.2e-05
E   ModuleNotFoundError: No module named 'yaml'
2026-11-23T03:48:53.717Z WARN retrying in 1.5 s (attempt 2 of 10)
12 passed, 3 failed, 1 skipped in 4.21s
src/sp_telemetry/cli/main.py:33:141: E501 Line too long (142 > 140)
rustc 1.83.0 (90b35a623 2024-11-26) error[E0382]: borrow of moved value: `text`
std::vector<std::string>::operator[] out of range
docker: Error response from daemon: manifest for clickhouse/clickhouse-server:26.8 not found
Code: 60. DB::Exception: Table telemetry.telemetry_event does not exist. (UNKNOWN_TABLE) (version 26.9.2.1)
HTTP/1.1 200 OK Content-Length: 1024 Content-Type: application/json
GET /v1/messages?beta=true 200 in 812ms
warning: LF will be replaced by CRLF the next time Git touches it
1,234,567 tokens, 3 chapters, 0.0312 USD, 98.7 %
Hook PreToolUse:Bash denied this tool
OAuth token has expired. Please run /login
Credit balance is too low
""".strip().splitlines()


def corpus() -> dict[str, list[str]]:
    """Kind -> texts."""
    chance = random.Random(20261123)

    def of(alphabet: str, length: int) -> str:
        return "".join(chance.choices(alphabet, k=length))

    alphanumeric = string.ascii_letters + string.digits
    models = [f"claude-{family}-{major}{minor}{date}" for family in ("opus", "sonnet", "haiku", "3-5-haiku", "fable") for major in range(3, 7)
              for minor in ("", "-5", "-8") for date in ("", "-20251001", "-20260915", "@20250929", "[1m]")]  # fmt: skip
    models += [f"{region}.anthropic.{model}-v1:0" for region in ("us", "eu", "apac") for model in models[:20]] + ["gpt-5.1", "gemini-3-pro"]
    words = ["usage", "data", "collection", "cost", "reports", "agent", "telemetry", "privacy", "chapter", "fix", "token", "key", "secret", "home"]
    branches = [f"{chance.choice(['', 'feature/', 'fix/', 'chapter/', 'worktree-', 'grace/'])}{chance.randrange(1, 400):03}-"
                + "-".join(chance.sample(words, 3)) for _ in range(500)]  # fmt: skip
    branches += ["main", "master", "develop", "release/2.1", "dependabot/npm_and_yarn/left-pad-1.3.0", "renovate/major-5-x", "HEAD"]
    moments = [f"2026-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}T{chance.randrange(24):02}:{chance.randrange(60):02}:07.{chance.randrange(1000):03}Z"
               for _ in range(300)]  # fmt: skip
    return {
        "UUIDs": [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(5000)],
        "request ids": [f"{chance.choice(['req_01', 'msg_01', 'toolu_01'])}{of(alphanumeric, 22)}" for _ in range(5000)],
        "user.id and hashes": [of(HEX, chance.choice([7, 12, 16, 17, 40, 64])) for _ in range(5000)],
        "numbers and moments": [*(str(chance.randrange(10 ** chance.randrange(1, 20))) for _ in range(2000)), *moments,
                                *(f"{chance.random() * 100:.{chance.randrange(18)}f}" for _ in range(2000))],
        "versions": [".".join(str(chance.randrange(400)) for _ in range(chance.choice([2, 3]))) + chance.choice(["", "-beta.1", "rc2", "+build.7"])
                     for _ in range(2000)],
        "models": models,
        "branches": branches,
        "paths in a repository": [f"book/{chance.randrange(10):02}-part/{chance.randrange(60):02}-{chance.choice(words)}-{chance.choice(words)}/"
                                  f"{chance.choice(['chapter.md', 'notes.md', 'spec.md', 'figure-1.svg'])}" for _ in range(1000)],
        "errors": ERRORS,
        **_repository(),
    }  # fmt: skip


def _repository() -> dict[str, list[str]]:
    """This repository's own lines, and its commits' subjects."""
    # Where secrets and addresses are the subject, they are no false positives.
    meant = re.compile(r"tests/(?!recordings/README)|privacy|troubleshooting|test_|\.lock$|setup/|hooks/|doctor|clickhouse_|schema/0001|LICENSE|docs/decisions")
    kinds: dict[str, list[str]] = {"lines of code": [], "lines of prose": []}
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        if name.endswith((".py", ".sql", ".md", ".sh")) and not meant.search(name):
            lines = [line.strip() for line in (ROOT / name).read_text().splitlines() if len(line.strip()) > 3]
            kinds["lines of prose" if name.endswith(".md") else "lines of code"] += lines
    kinds["subjects of commits"] = subprocess.check_output(["git", "log", "--format=%s"], cwd=ROOT, text=True).splitlines()
    return kinds


def touched(texts: list[str], run: Callable[[str], bytes]) -> dict[str, list[str]]:
    """Pattern -> the texts of `texts` that redaction changes and that it matches. `run(sql)`: the engine's answer as TabSeparated."""
    found: dict[str, list[str]] = {}
    regexes = array([pattern.regex for pattern in PATTERNS])
    for start in range(0, len(texts), 2000):
        some = texts[start : start + 2000]
        rows = run(
            f"SELECT n, arrayFilter(i -> match(s, {regexes}[i]), range(1, {len(PATTERNS) + 1})) FROM"
            f" (SELECT arrayJoin(arrayZip(range({len(some)}), {array(some)})) AS p, p.1 AS n, p.2 AS s)"
            f" WHERE {redacted('s', 1000)} != {one_line('s', 1000)}"
        )
        for row in rows.decode().splitlines():
            number, hits = row.split("\t")
            for index in re.findall(r"\d+", hits):
                found.setdefault(PATTERNS[int(index) - 1].name, []).append(some[int(number)])
    return found


def main() -> None:
    import chdb

    engine = chdb.connect(":memory:")
    print("| ordinary text | texts | touched | by |\n|---|---:|---:|---|")
    for kind, texts in corpus().items():
        found = touched(texts, lambda sql: engine.query(sql, "TSV").bytes())
        hit = {text for each in found.values() for text in each}
        by = ", ".join(f"{name} {len(set(each))}" for name, each in sorted(found.items(), key=lambda one: -len(one[1])))
        print(f"| {kind} | {len(texts):,} | {len(hit):,} ({len(hit) / len(texts):.2%}) | {by} |")


if __name__ == "__main__":
    main()
