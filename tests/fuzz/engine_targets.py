"""What reaches the engine: OTLP bodies through the real pipeline, statements through the real interface, blocks that it writes, files that
it reads or judges.

The engine is one in a process, so `Engines` opens it once.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from uuid import UUID

from sp_telemetry.errors import QueryFailed, UsageError
from sp_telemetry.home import READER, WRITER
from sp_telemetry.privacy import own
from sp_telemetry.serve import clickhouse_native
from sp_telemetry.serve.clickhouse_access import Access
from sp_telemetry.serve.clickhouse_request import Asked
from sp_telemetry.serve.clickhouse_run import Control, Run
from sp_telemetry.serve.commit import Rejected, commit
from sp_telemetry.store import prices, schema
from sp_telemetry.store.engine import Engine
from sp_telemetry.store.pipeline import SIGNALS, Lane, Pipeline
from sp_telemetry.transcripts import files, reading
from tests import transcripts
from tests.fuzz.targets import either
from tests.server import as_json, as_protobuf, log_request

NAMES = [
    "statement", "native", "transcript", "own_prices", "own_patterns",
    *(f"{signal}_{encoding}" for signal in SIGNALS for encoding in ("protobuf", "json")),
]  # fmt: skip
SECRET = "the words in the file that nobody may read"


class Engines:
    """The engine, and a target for each way into it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        folder = Path(self._folder.name)
        (folder / "secret").write_text(SECRET)
        self._engine = Engine(folder / "store", folder / "engine")
        self._handle = self._engine.handle()
        schema.migrate(self._handle)
        self._salt = self._handle.query("SELECT any(salt) FROM telemetry.installation").decode().strip()
        assert self._salt
        self._pipeline = Pipeline(self._handle)
        self._control = Control(self._engine)
        self._access = Access("w", "r", query_timeout_s=2, query_memory_mib=200)
        self._numbers = itertools.count(1)
        self._path = str(folder / "secret")
        self._folder_of_files = folder
        prices.load(self._handle)
        self.targets: dict[str, Callable[[bytes], None]] = {
            "statement": self._statement, "native": self._native, "transcript": self._transcript, "own_prices": self._own_prices,
            "own_patterns": self._own_patterns,
        }  # fmt: skip
        for lane in (Lane(signal, encoding) for signal in SIGNALS for encoding in ("protobuf", "json")):
            self.targets[f"{lane.signal}_{lane.encoding}"] = partial(self._body, lane)

    def close(self) -> None:
        self._control.close()
        self._handle.close()
        self._engine.close()
        self._folder.cleanup()

    def _body(self, lane: Lane, data: bytes) -> None:
        """Stored, or rejected for good; its neighbours in the batch are stored either way, each with its one record."""
        if lane.encoding == "json" and not data.strip():
            return  # the listener refuses it
        events = []
        for _ in range(2):
            told = {"name": "api_request", "time_ns": 1_790_000_000_000_000_000, "session.id": str(UUID(int=next(self._numbers)))}
            events.append(log_request([told]))
        good = [b"", b""] if lane.encoding == "protobuf" else [b"{}", b"{}"]
        if lane.signal == "logs":
            good = [(as_protobuf if lane.encoding == "protobuf" else as_json)(event) for event in events]
        answers = commit(self._pipeline, lane, [good[0], data, good[1]])
        assert not isinstance(answers[0], Exception) and not isinstance(answers[2], Exception), answers
        assert isinstance(answers[1], (int, Rejected)), answers
        if lane.signal == "logs":
            sessions = ", ".join(f"'{UUID(int=next(self._numbers) - back)}'" for back in (1, 3))  # numbers go on; these were the two
            assert int(self._handle.query(f"SELECT uniq(session_id) FROM telemetry.telemetry_events WHERE session_id IN ({sessions})")) == 2

    def _statement(self, data: bytes) -> None:
        """What is run is what was read, and tells neither user the salt nor what is in a file; a reader changes nothing."""
        sql = data.decode("utf-8", "replace").replace("{file}", self._path)
        try:
            canonical = self._control._read(sql)
        except QueryFailed:
            return
        assert self._control._read(canonical) == canonical, (sql, canonical)
        for user in (READER, WRITER):
            try:
                asked = Asked(sql)
                statement = self._control.examine(asked, user)
                if user == WRITER and statement.kind not in ("SELECT", "WITH", "SHOW", "DESCRIBE", "EXPLAIN", "EXISTS"):
                    continue  # may change the tables that the next one needs
                settings = self._access.settings(user, statement.settings, self._control.known_settings)
                with closing(Run(self._control, asked, user, statement, {"max_execution_time": "2"} | settings).pieces()) as pieces:
                    answer = b"".join(itertools.islice(pieces, 3))
            except QueryFailed as error:
                answer = str(error).encode()
            assert self._salt.encode() not in answer and SECRET.encode() not in answer, (sql, answer)

    def _native(self, data: bytes) -> None:
        """Blocks of any types: each is gone through to its end, and without what was put in it is as it was."""
        seed = int.from_bytes(data[:7], "little")
        rows = data[7] % 50 if len(data) > 7 else 3
        structure = self._handle.query(f"SELECT generateRandomStructure({seed % 5 + 1}, {seed})").decode().strip()
        sql = f"SELECT * FROM generateRandom('{structure}', {seed}, 10, 3) LIMIT {rows}"
        try:
            block = self._handle.query(sql, "Native")
        except QueryFailed:
            return
        try:
            told = b"".join(clickhouse_native.at_revision([block], clickhouse_native.CUSTOM_SERIALISATION))
        except QueryFailed as error:
            assert error.code == 48, structure
            return
        columns = block[0] if block else 0
        assert len(told) == len(block) + (len(clickhouse_native._INFO) + columns if block else 0), structure
        if block:
            assert told.startswith(clickhouse_native._INFO + block[:1])

    def _transcript(self, data: bytes) -> None:
        """A transcript of these bytes between two good ones: it is read to its end, they are read whole, and lines that nobody takes for
        JSON are counted."""
        configuration = transcripts.Configuration(self._folder_of_files / f"claude-{next(self._numbers)}")
        good = [str(UUID(int=next(self._numbers))) for _ in range(2)]
        for name in (f"a{good[0]}", f"c{good[1]}"):
            session = name[1:]
            configuration.session(name, [transcripts.answer(session, f"{session[-9:]}x", transcripts.START, {"output_tokens": 300})])
        configuration.session("b", [data])
        found = configuration.found().files
        read = reading._read_batch(self._engine, found, files.machine(transcripts.SECRET))
        for table, rows in (("requests", [one.requests for one in read]), ("files", [one.files for one in read])):
            if blocks := [block for each in rows for block in each]:
                self._handle.insert(f"INSERT INTO telemetry.read_{table}", "Native", blocks)
        sessions = ", ".join(f"'{each}'" for each in good)
        ids = ", ".join(f"'{file.file_id}'" for file in (found[0], found[2]))
        sql = f"SELECT groupArray(requests) FROM telemetry.transcript_files FINAL WHERE file_id IN ({ids})"
        assert self._handle.query(sql) == b"[1,1]\n"
        sql = f"SELECT groupArray(output_tokens) FROM telemetry.transcript_requests WHERE session_id IN ({sessions})"
        assert self._handle.query(sql) == b"[300,300]\n"
        sql = f"SELECT problem, cut_lines + unreadable_lines FROM telemetry.transcript_files FINAL WHERE file_id = '{found[1].file_id}'"
        problem, left_out = self._handle.query(sql).decode().rstrip("\n").split("\t")
        lines = [line.strip() for line in data.split(b"\n")]
        assert problem or int(left_out) >= sum(line[:1] not in (b"", b"{", b"[") for line in lines), (problem, left_out)

    def _own_prices(self, data: bytes) -> None:
        """prices.csv: UsageError, and the list is as it was; or each model and tier has one price on a day, from 0 on."""
        listed = "SELECT * FROM telemetry.prices ORDER BY ALL"
        before, file = self._handle.query(listed), self._folder_of_files / "prices.csv"
        file.write_bytes(data)
        loaded = either(lambda: prices.load(self._handle, file), UsageError)
        if isinstance(loaded, UsageError):
            assert str(file) in str(loaded) and self._handle.query(listed) == before
            return
        wrong = """SELECT countIf(NOT (input >= 0 AND output >= 0 AND cache_read >= 0 AND valid_from < valid_to) OR valid_from < until)
            FROM (SELECT *, lagInFrame(valid_to, 1, toDate(0)) OVER (PARTITION BY model, tier ORDER BY valid_from
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS until FROM telemetry.prices)"""
        assert self._handle.query(wrong) == b"0\n", data

    def _own_patterns(self, data: bytes) -> None:
        """privacy.toml as the engine judges it: UsageError that says what to do, or patterns that do away with what they have to match."""
        file = self._folder_of_files / own.NAME
        file.write_bytes(data)
        read = either(lambda: own.read(file), UsageError)
        if isinstance(read, UsageError):
            return
        patterns = read.patterns[:2]
        proved = either(lambda: own.prove(patterns, self._handle.query), UsageError)
        if isinstance(proved, UsageError):
            assert own.NAME in str(proved) and proved.hint
            return
        policy = own.Own(patterns).policy("full")
        for text in [text for pattern in patterns for text in pattern.like][:3]:
            assert own.hits(policy, text, self._handle.query), text
            assert own.effect(policy, text, self._handle.query, 3000) != text, text
