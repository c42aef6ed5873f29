"""Who may ask what of the ClickHouse interface.

The engine has one user and no grants, so access is held in four layers, each of which fails closed:

1. the statement is read by the engine's own parser, whose canonical text is scanned (clickhouse_statement.py) and then run in place
   of what was sent: what is checked is what is run;
2. every query of the reader runs on a handle with readonly=1, on which the engine itself refuses writes, table functions that
   reach out, and any change of a setting;
3. settings are chosen from a list, and limits are set on that handle before it becomes readonly;
4. row filters in the engine's configuration hide the salt from every handle that does not work for the engine (store/engine.py).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass

from sp_telemetry.home import READER, WRITER
from sp_telemetry.serve.clickhouse_request import Credentials, refuse

DATABASE = "telemetry"
# What a client may set: how values are written and read, what SQL means, how a query is planned. Everything else is refused, for the
# engine has settings that are SQL themselves (`select`, `filter`, `order`), name files, lift limits, or say whose query it is; and
# each version adds some.
# fmt: off
SETTINGS = re.compile("|".join([
    # how values are read and written
    r"(input|output)_format_(?!values_interpret|values_deduce|schema|record_errors|parquet_memory)\w+",
    r"format_(csv|tsv|custom|json|binary|geojson|hive_text|regexp)\w*",
    r"(date_time|formatdatetime|parsedatetime|interval_output|bool_(true|false)|cast|describe|low_cardinality|json_type)_\w+",
    "session_timezone", "precise_float_parsing", "errors_output_format", "use_mysql_types_in_show_columns",
    # what SQL means
    r"(join|joined|group_by|aggregate_functions|empty_result|count_distinct|count_matches)_\w+", "any_join_distinct_right_table_keys",
    "final", "limit", "offset", "extremes", "totals_mode", "transform_null_in", "(union|intersect|except)_default_mode", "flatten_nested",
    "prefer_column_name_to_alias", "decimal_check_overflow", "data_type_default_nullable", r"geo\w+", r"h3\w+", "use_legacy_to_time",
    "least_greatest_legacy_null_behavior", r"use_variant_\w+", "apply_mutations_on_fly", "check_query_single_value_result",
    r"allow_(experimental|suspicious)_\w*(type|types|codecs|indices|analyzer|correlated_subqueries|functions)\w*",
    r"enable_(analyzer|\w+_type|order_by_all|positional_arguments|optimize_predicate_expression|scalar_subquery_optimization)",
    "enable_(global_with_statement|extended_results_for_datetime_functions|materialized_cte|unaligned_array_join)",
    # how a query is planned
    r"(optimize|query_plan|compile|read_in_order)_\w+", r"use_(skip_indexes|projection|index|partition|primary_key|statistics|top_k)\w*",
    r"merge_tree_(min|max|coarse|use)_\w+", "use_uncompressed_cache", "force_(primary_key|index_by_date|data_skipping_indices)",
    "do_not_merge_across_partitions_select_final", "enable_vertical_final", r"min_count_to_compile_\w+", "preferred_block_size_bytes",
    # how much of it
    "max_(rows|bytes|columns|partitions)_(to|in)_(read|read_leaf|sort|group_by|transfer|distinct|join|set)", "result_overflow_mode",
    r"max_(block_size|joined_block_size_(rows|bytes)|insert_block_size\w*|partitions_per_insert_block)", r"m(in|ax)_execution_speed\w*",
    # how it is written
    r"insert_(deduplicat\w+|null_as_default|quorum\w*|select_deduplicate)", r"deduplicate_\w+", r"(wait_for_)?async_insert\w*",
    r"min_insert_block_size_\w+", "(mutations|alter|lightweight_deletes)_sync", "throw_if_no_data_to_insert", "allow_drop_detached",
    "allow_nondeterministic_mutations", r"enable_lightweight_(delete|update)", "materialize_ttl_after_modify",
    # what clients of a server send, and does nothing here
    "(connect|send|receive|http_connection|http_receive|http_send|lock_acquire)_timeout", r"http_max_\w+", "http_wait_end_of_query",
    "http_response_buffer_size", "load_balancing", "log_queries",
]))
# fmt: on
# What a reader may lower.
LIMITS = ("max_execution_time", "max_memory_usage", "max_result_rows", "max_result_bytes", "max_threads")
# Among the values of an INSERT the engine would evaluate expressions: only those that have been looked at (clickhouse_run.py).
EXPRESSIONS = ("input_format_values_interpret_expressions", "input_format_values_deduce_templates_of_expressions")
# As the profiles in telemetry-server/clickhouse/config/users.xml: what arrived twice counts once. The others let a session's trace read
# only where its session is (the engine moves up only what holds for all versions of a row), and by all threads, though it is little: a
# thread takes eight granules at once by default, and a session lies in ten.
DEFAULTS = {
    "final": "1",
    "do_not_merge_across_partitions_select_final": "1",
    "optimize_move_to_prewhere_if_final": "1",
    "merge_tree_min_rows_for_concurrent_read": "16384",
    "merge_tree_min_bytes_for_concurrent_read": "1048576",
    "merge_tree_min_read_task_size": "4",
}
MAX_RESULT_ROWS = 100_000_000
# Pieces of a statement. The largest of ours has 1,000; some chains (tables, APPLY) overflow the engine's stack at 9,000, which is its end.
MAX_PIECES = 3000
MAX_THREADS = 64


def changeable(name: str) -> bool:
    """Whether a client may change this setting at all."""
    return name in LIMITS or SETTINGS.fullmatch(name) is not None


@dataclass(frozen=True)
class Access:
    """The users, their passwords, and what bounds a reader."""

    writer_password: str
    reader_password: str
    anonymous_reads: bool = False
    query_timeout_s: float = 30
    query_memory_mib: int = 1024

    def user(self, given: Credentials) -> str:
        """WRITER or READER. Raises ClickHouse's 516, which does not tell an unknown name from a wrong password."""
        if not given.given and self.anonymous_reads:
            return READER
        known = {WRITER: self.writer_password, READER: self.reader_password}
        expected = known.get(given.user, "")
        # Compared for unknown names too, so that the time taken tells nothing.
        if hmac.compare_digest(given.password.encode(), expected.encode()) and expected:
            return given.user
        name = re.sub(r"[^\w.@-]", "?", given.user)[:64] or "default"
        raise refuse(
            516, "AUTHENTICATION_FAILED", f"{name}: Authentication failed: password is incorrect, or there is no user with such name."
        )

    def settings(self, user: str, asked: Mapping[str, str], known: Set[str]) -> dict[str, str]:
        """The settings that a query of `user` runs with. `known` are the engine's.

        Raises 115 for a setting that the engine does not have, 452 for one that is not a client's to change, or beyond its limit.
        """
        memory = self.query_memory_mib << 20
        limits = {"max_execution_time": self.query_timeout_s, "max_memory_usage": memory, "max_result_rows": MAX_RESULT_ROWS}
        chosen = DEFAULTS | dict.fromkeys(EXPRESSIONS, "0")
        if user == READER:
            chosen |= {name: str(limit) for name, limit in limits.items()} | {"max_ast_elements": str(MAX_PIECES)}
        limits |= {"max_threads": MAX_THREADS}
        for name, value in asked.items():
            if name not in known:
                raise refuse(115, "UNKNOWN_SETTING", f"Unknown setting '{name[:100]}'")
            if name in LIMITS:
                chosen[name] = _lowered(name, value, limits.get(name) if user == READER else None)
            elif not changeable(name):
                raise refuse(452, "SETTING_CONSTRAINT_VIOLATION", f"Setting {name} should not be changed")
            else:
                chosen[name] = value
        return chosen


def _lowered(name: str, value: str, limit: float | None) -> str:
    try:
        number = float(value)
    except ValueError:
        raise refuse(72, "CANNOT_PARSE_NUMBER", f"Cannot parse {value[:50]!r} as the value of setting {name}") from None
    if limit is not None and not 0 < number <= limit:  # 0 means none at all
        raise refuse(452, "SETTING_CONSTRAINT_VIOLATION", f"Setting {name} shouldn't be greater than {limit:g}")
    return value
