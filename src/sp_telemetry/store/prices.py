"""What tokens cost: the shipped list, and an installation's own rows in place of some of it, loaded into `telemetry.model_prices`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sp_telemetry import resources
from sp_telemetry.errors import QueryFailed, UsageError
from sp_telemetry.store.schema import Runner, record, recorded

COLUMNS = """
    model String, tier Enum8('standard' = 1, 'long' = 2, 'fast' = 3) DEFAULT 'standard', above_tokens UInt64,
    valid_from Nullable(Date), valid_to Nullable(Date), input Nullable(Float64), output Nullable(Float64),
    cache_read Float64 DEFAULT ifNull(input, 0) * 0.1, cache_write_5m Float64 DEFAULT ifNull(input, 0) * 1.25,
    cache_write_1h Float64 DEFAULT ifNull(input, 0) * 2,
    batch Float64 DEFAULT 0.5, us Float64 DEFAULT 1.1, web_search Float64 DEFAULT 0.01, source String, retrieved Nullable(Date)"""
# A model under the name that its requests are priced by, however it is written; and no sum is made of what is no price. A row of one's own
# need not say where it is from nor when it was looked up (1970-01-01 then, for nobody knows); each shipped one does.
_READ = """
    SELECT
        telemetry_price_model(t.model) AS model, toString(t.tier) AS tier, above_tokens, ifNull(valid_from, toDate(0)) AS first_day,
        ifNull(valid_to, toDate('2149-06-06')) AS day_after, assumeNotNull(t.input) AS input, assumeNotNull(t.output) AS output,
        cache_read, cache_write_5m, cache_write_1h, batch, us, web_search, source, ifNull(retrieved, toDate(0)), '{origin}' AS origin
    FROM format(CSVWithNames, '{columns}', '{text}') AS t
    WHERE throwIf(t.model = '', 'a row names no model') = 0
      AND throwIf(isNull(t.input) OR isNull(t.output), 'a row has no price of input or output') = 0
      AND throwIf(arrayExists(price -> NOT (price >= 0 AND price < 1e9),
              [t.input, t.output, cache_read, cache_write_5m, cache_write_1h, batch, us, web_search]), 'a price is no number from 0 on') = 0
      AND throwIf(first_day >= day_after, 'a row ends before it begins') = 0
"""
# A price holds until the next one of its model and tier begins, so that no day has two, whoever asks. And where a model has prices of
# long prompts on some days only, such prompts cost on the others what all cost: rows of tier long that say so.
_LIST = """
    WITH
        list AS
        (
            SELECT * REPLACE (least(day_after, next_day) AS day_after) EXCEPT next_day
            FROM
            (
                SELECT *, leadInFrame(first_day, 1, day_after) OVER (PARTITION BY model, tier ORDER BY first_day, day_after, input
                    ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS next_day
                FROM ({list})
            )
            WHERE first_day < next_day
        ),
        other_days AS
        (
            SELECT
                model, min(above_tokens) AS above, arraySort(groupArray((first_day, day_after))) AS held,
                arrayPushFront(held.2, toDate(0)) AS begin,
                arrayPushBack(held.1, toDate('2149-06-06')) AS end,
                arrayJoin(arrayZip(begin, end)) AS days
            FROM list WHERE tier = 'long' GROUP BY model
        )
    SELECT * FROM list
    UNION ALL
    SELECT l.* REPLACE ('long' AS tier, o.above AS above_tokens,
        greatest(first_day, o.days.1) AS first_day, least(day_after, o.days.2) AS day_after)
    FROM list AS l INNER JOIN other_days AS o ON l.model = o.model
    WHERE l.tier = 'standard' AND greatest(l.first_day, o.days.1) < least(l.day_after, o.days.2)
"""
_SETTINGS = "SETTINGS input_format_skip_unknown_fields = 0, input_format_csv_empty_as_default = 1"


def load(runner: Runner, own: Path | None = None) -> bool:
    """Make `telemetry.prices` show the shipped list and the rows of `own`, a CSV file; whether anything had changed.

    Rows of `own` stand in place of all shipped ones of their model and tier; on days for which it then has no price of long prompts,
    these cost what others do. Raises UsageError where `own` can't be read; then the list loaded before stays, or the shipped one.
    """
    shipped = _shipped()
    mine = _own_text(own)
    checksum = _checksum(shipped, mine)
    known = recorded(runner).get("prices")
    if known == checksum:
        return False
    try:
        runner.query(_statement(shipped, mine))
    except QueryFailed as error:
        if not mine:
            raise
        if not known:
            load(runner)
        raise UsageError(
            f"{own} can't be read as prices: {error}", "Its columns are those of telemetry-server/prices/anthropic.csv."
        ) from None
    record(runner, "prices", checksum)
    return True


def are_loaded(runner: Runner, own: Path) -> bool:
    """Whether the store's list is the shipped one with `own` as it is now. Raises UsageError where `own` can't be read."""
    return recorded(runner).get("prices") == _checksum(_shipped(), _own_text(own))


def own_file(home: Path, named: str) -> Path | None:
    """Where an installation's own prices are: the file named in the setting `prices`, else prices.csv in `home`; None without one."""
    file = Path(named).expanduser() if named else home / "prices.csv"
    return file if named or file.exists() else None


def _shipped() -> str:
    return resources.path("telemetry-server/prices/anthropic.csv").read_text("utf-8")


def _checksum(shipped: str, own: str) -> str:
    return hashlib.sha256(f"{_READ}\0{_LIST}\0{shipped}\0{own}".encode()).hexdigest()


def _own_text(own: Path | None) -> str:
    if own is None:
        return ""
    try:
        return own.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{own} can't be read: {error}.", "Mend it, or name another file in the setting `prices`.") from None


def _statement(shipped: str, own: str) -> str:
    """One insert, so that a reader sees the old list or the new one."""
    both = [_select(shipped, "shipped")]
    if own.strip():
        both[0] = f"SELECT * FROM ({both[0]}) WHERE (model, tier) NOT IN (SELECT model, tier FROM ({_select(own, 'own')}))"
        both.append(_select(own, "own"))
    return f"INSERT INTO telemetry.model_prices SELECT now64(9), * FROM ({_LIST.format(list=' UNION ALL '.join(both))}) {_SETTINGS}"


def _select(text: str, origin: str) -> str:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return _READ.format(origin=origin, columns=COLUMNS.replace("'", "\\'"), text=quoted)
