"""Transcripts to measure and to test with: as Claude Code writes them, with everything in them that makes counting go wrong.

`write` makes a `projects` folder from a seed and says what is true of it: `Truth.requests` has each API request once, with the usage
that was billed. In the files the same request stands on several lines (a line a content block), the earlier ones with a placeholder
for the output; lines are repeated, histories are copied into other sessions, subagents have files of their own, a model named
<synthetic> speaks, a last line is cut.

    python tests/bench/transcripts.py FOLDER [--megabytes 1000] [--sessions 400] [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

START = datetime(2026, 10, 24, 6, tzinfo=UTC)
DAYS = 28
CLIENTS = (  # version, model of the main thread, of subagents; the oldest writes no requestId
    ("2.1.330", "claude-opus-5-5", "claude-haiku-5-5"),
    ("2.1.330", "claude-sonnet-5-5", "claude-haiku-5-5"),
    ("2.1.295", "claude-fable-5-1", "claude-sonnet-5-5"),
    ("2.1.197", "claude-opus-4-8", "claude-haiku-4-5-20251001"),
    ("2.0.14", "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001"),
)
BRANCHES = ("017-usage-data-collection", "018-cost-reports", "019-audit", "main", "chapter-33-agents")
THOUGHT = '{"type":"thinking","thinking":"","signature":"' + "Qk" * 90 + '"}'
PLACES = ("manuscript/05-part/33-agents", "manuscript/05-part/34-cost", "manuscript/02-part/07-tools", "src")
WORDS = ("the", "a", "request", "costs", "what", "its", "chapter", "reads", "writes", "in", "cache", "until", "branch", "fails", "again")


@dataclass(frozen=True)
class Request:
    """One API request, as it was billed."""

    message_id: str
    request_id: str
    session_id: str
    agent_id: str
    at: datetime
    model: str
    branch: str
    cwd: str
    input: int
    output: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int

    @property
    def tokens(self) -> tuple[int, int, int, int]:
        """Input, output, cache reads, cache writes."""
        return self.input, self.output, self.cache_read, self.cache_write_5m + self.cache_write_1h


@dataclass
class Truth:
    """What is true of a folder of transcripts. `placeholders`: message id -> output of its first line, where that is not the whole."""

    requests: list[Request] = field(default_factory=list)
    placeholders: dict[str, int] = field(default_factory=dict)
    repeated: Counter[str] = field(default_factory=Counter)
    files: int = 0
    bytes: int = 0

    def by_day_and_model(self) -> dict[tuple[str, str], tuple[int, int, int, int]]:
        """Tokens (as Request.tokens) by day (UTC) and model."""
        sums: dict[tuple[str, str], list[int]] = {}
        for request in self.requests:
            into = sums.setdefault((f"{request.at:%Y-%m-%d}", request.model), [0, 0, 0, 0])
            for index, number in enumerate(request.tokens):
                into[index] += number
        return {key: tuple(sums[key]) for key in sorted(sums)}


class Writer:
    """Writes sessions until there are enough bytes. All it does follows from the seed."""

    def __init__(self, folder: Path, seed: int, filler_bytes: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.truth = Truth()
        self.fillers = [" ".join(self.random.choices(WORDS, k=max(1, size // 6))) for size in
                        (int(filler_bytes * self.random.paretovariate(1.6) / 2.7) for _ in range(500))]  # fmt: skip

    def id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def session(self, number: int, requests: int) -> list[str]:
        """One session: its file and those of its subagents. Returns the lines of the main file."""
        session = self.id()
        at = START + timedelta(days=DAYS * self.random.random())
        version, model, small = CLIENTS[number % len(CLIENTS)]
        cwd = f"/home/author/book/{self.random.choice(PLACES)}" if number % 3 else "/home/author/book"
        folder = self.folder / "".join(char if char.isalnum() else "-" for char in cwd)
        branch = self.random.choice(BRANCHES)
        lines = [f'{{"type":"queue-operation","operation":"enqueue","timestamp":"{stamp(at)}","sessionId":"{session}","content":"go"}}\n']
        made = 0
        while made < requests:
            if self.random.random() < 0.1:
                branch = self.random.choice(BRANCHES)
            prompt = self.id()
            turn = min(self.random.randint(1, 40), requests - made)
            if self.random.random() < 0.3 and turn > 6:
                agent = f"a{self.random.getrandbits(60):015x}"
                part = self.turn(session, prompt, agent, at + timedelta(seconds=5), version, small, branch, cwd, turn // 3)[0]
                self.save(folder / session / "subagents" / f"agent-{agent}.jsonl", part)
                made += turn // 3
                turn -= turn // 3
            more, at = self.turn(session, prompt, "", at, version, model, branch, cwd, turn)
            lines += more
            made += turn
            if self.random.random() < 0.15:  # a side question replays the history; so did some versions after a prompt
                again = [line for line in lines[-self.random.randint(2, 30) :] if '"type":"assistant"' in line]
                self.truth.repeated["replayed"] += len(again)
                lines += [line.replace('"isSidechain":false', '"isSidechain":true') for line in again]
            at += timedelta(seconds=self.random.expovariate(1 / 240))
        if self.random.random() < 0.1:
            self.truth.repeated["cut"] += 1
            self.save(folder / f"{session}.jsonl", [*lines, lines[-1][: len(lines[-1]) // 2]])
        else:
            self.save(folder / f"{session}.jsonl", lines)
        if self.random.random() < 0.1:  # forked: the history is copied, under the new session's name
            fork = self.id()
            copied = [line.replace(session, fork) for line in lines]
            more, _ = self.turn(fork, self.id(), "", at + timedelta(minutes=9), version, model, branch, cwd, 5)
            self.truth.repeated["copied"] += sum('"type":"assistant"' in line for line in copied)
            self.save(folder / f"{fork}.jsonl", copied + more)
        return lines

    def turn(self, session: str, prompt: str, agent: str, at: datetime, version: str, model: str, branch: str, cwd: str,
             requests: int) -> tuple[list[str], datetime]:  # fmt: skip
        """A prompt and the requests that answer it, one tool call each. Returns lines and when the last one was written."""
        chance, lines, parent = self.random, [], self.id()
        old = version.startswith("2.0")
        side, agent_field = ("true", f'"agentId":"{agent}",') if agent else ("false", "")
        common = (
            f'"userType":"external","entrypoint":"cli","cwd":"{cwd}","sessionId":"{session}","version":"{version}","gitBranch":"{branch}"'
        )

        def user(content: str, when: datetime) -> None:
            nonlocal parent
            new = self.id()
            lines.append(
                f'{{"parentUuid":"{parent}","isSidechain":{side},"promptId":"{prompt}",{agent_field}"type":"user",'
                f'"message":{{"role":"user","content":{content}}},"uuid":"{new}","timestamp":"{stamp(when)}",{common}}}\n'
            )
            parent = new

        user(json.dumps("write on about " + chance.choice(WORDS)), at)
        read = 18_000
        for step in range(requests):
            at += timedelta(milliseconds=chance.randint(2_000, 14_000))
            message, number = f"msg_01{chance.getrandbits(110):022x}", f"req_011{chance.getrandbits(100):021x}"
            written, output = chance.randint(200, 6_000), chance.randint(20, 3_000)
            five, hour = (written, 0) if agent or old else (0, written)
            tokens = (chance.randint(1, 12), output, read, five, hour)
            request = Request(message, "" if old else number, session, agent, at, model, branch, cwd, *tokens)
            self.truth.requests.append(request)
            last = step == requests - 1
            tool = f"toolu_01{chance.getrandbits(100):022x}"
            blocks = [THOUGHT] if chance.random() < 0.5 else []
            blocks.append(f'{{"type":"text","text":"{chance.choice(self.fillers)[:400]}"}}')
            if not last:
                blocks.append(f'{{"type":"tool_use","id":"{tool}","name":"Read","input":{{"file_path":"{cwd}/chapter.md"}}}}')
            placeholder = chance.randint(1, 8) if len(blocks) > 1 and chance.random() < 0.3 else output
            if placeholder != output:
                self.truth.placeholders[message] = placeholder
            for index, block in enumerate(blocks):
                said = output if index == len(blocks) - 1 else placeholder
                stop = "null" if index < len(blocks) - 1 else '"end_turn"' if last else '"tool_use"'
                new = self.id()
                lines.append(
                    f'{{"parentUuid":"{parent}","isSidechain":{side},{agent_field}"message":{{"id":"{message}","type":"message",'
                    f'"role":"assistant","model":"{model}","content":[{block}],"stop_reason":{stop},"stop_sequence":null,'
                    f'"usage":{{"input_tokens":{request.input},"cache_creation_input_tokens":{written},"cache_read_input_tokens":{read},'
                    f'"output_tokens":{said},"server_tool_use":{{"web_search_requests":0,"web_fetch_requests":0}},"service_tier":"standard",'
                    f'"cache_creation":{{"ephemeral_1h_input_tokens":{hour},"ephemeral_5m_input_tokens":{five}}},"inference_geo":"",'
                    f'"iterations":[],"speed":"standard"}}}},'
                    + ("" if old else f'"requestId":"{number}",')
                    + f'"type":"assistant","uuid":"{new}","timestamp":"{stamp(at + timedelta(milliseconds=index * 90))}",{common}}}\n'
                )
                parent = new
                if chance.random() < 0.01:
                    self.truth.repeated["doubled"] += 1
                    lines.append(lines[-1])
            read += written
            if not last:
                gave = chance.choice(self.fillers)
                user(f'[{{"tool_use_id":"{tool}","type":"tool_result","content":"{gave}"}}]', at + timedelta(seconds=1))
            elif chance.random() < 0.02:
                self.truth.repeated["synthetic"] += 1
                lines.append(
                    f'{{"parentUuid":"{parent}","isSidechain":{side},{agent_field}"type":"assistant",'
                    f'"message":{{"id":"{self.id()}","model":"<synthetic>","role":"assistant",'
                    f'"content":[{{"type":"text","text":"API Error"}}],'
                    f'"stop_reason":"stop_sequence","usage":{{"input_tokens":0,"output_tokens":0,"cache_creation_input_tokens":0,'
                    f'"cache_read_input_tokens":0}}}},"isApiErrorMessage":true,'
                    f'"uuid":"{self.id()}","timestamp":"{stamp(at)}",{common}}}\n'
                )
        return lines, at

    def save(self, file: Path, lines: list[str]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        data = "".join(lines).encode()
        file.write_bytes(data)
        self.truth.files += 1
        self.truth.bytes += len(data)


def stamp(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def write(projects: Path, *, sessions: int = 400, megabytes: float = 1000, seed: int = 1, requests: int = 500) -> Truth:
    """Fill the folder `projects` with about `megabytes` of `sessions`, of `requests` requests each on average."""
    beside = 2_600  # bytes of a request's lines without what its tool gave back
    writer = Writer(projects, seed, max(60, int(megabytes * 1e6 / (sessions * requests * 1.1)) - beside))
    for number in range(sessions):
        writer.session(number, max(1, int(writer.random.lognormvariate(-0.3, 0.8) * requests)))
    return writer.truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    for name, default in (("megabytes", 1000), ("sessions", 400), ("seed", 1), ("requests", 500)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    truth = write(args.folder, sessions=args.sessions, megabytes=args.megabytes, seed=args.seed, requests=args.requests)
    print(f"{truth.bytes / 1e6:,.0f} MB in {truth.files} files, {len(truth.requests):,} requests; on lines again: {dict(truth.repeated)}, "
          f"placeholders: {len(truth.placeholders):,}")  # fmt: skip


if __name__ == "__main__":
    main()
