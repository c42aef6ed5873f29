"""A report as text (terminals, and Claude Code's own window), JSON, CSV or Markdown. Asks nothing; gets a `Result`.

The table is laid out here and not by rich: `report` is asked for often, importing rich takes as long as all else together, and the
same text has to go where there is no terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sp_telemetry.reports.catalogue import UNATTRIBUTED, Column
from sp_telemetry.reports.coverage import lines as coverage_lines
from sp_telemetry.reports.figures import cut, figure, pad, plain, width_of
from sp_telemetry.reports.run import Result

_DIM, _BOLD, _OFF = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_BLOCKS = " ▏▎▍▌▋▊▉█"
_BAR = 12
_GAP = 2
_SHARE = 4 + 1 + _BAR  # "100%", a blank, the bar
_NARROWEST_NAME = 12
_BEFORE_BARS = 1  # columns up to this rank are worth more than bars


def text(result: Result, width: int = 80, max_rows: int = 20, color: bool = False) -> str:
    """A table of at most `width` columns and `max_rows` groups (0: all), a line for the total, and what stands under it."""
    by = result.parameters.by
    shown, hidden = _shown(result, max_rows)
    cells = _cells(result, shown)
    widths = {column: max(width_of(each) for each in column_cells) for column, column_cells in cells.items()}
    names = [[str(row[name]) for row in shown] for name in by]
    wanted = [max(width_of("total"), width_of(name), *map(width_of, each)) for name, each in zip(by, names, strict=True)]
    columns, bars, sizes = _layout(result, widths, wanted, width)

    def line(heads: list[str], place: int, last: str) -> str:
        parts = [pad(cut(head, size), size) for head, size in zip(heads, sizes, strict=True)]
        parts += [pad(cells[column][place], widths[column], right=column.kind not in ("text", "time")) for column in columns]
        return (" " * _GAP).join([*parts, last] if bars else parts).rstrip()

    rule = "─" * (sum(sizes) + sum(widths[column] for column in columns) + _GAP * (len(sizes) + len(columns) - 1) + bars * (_GAP + _SHARE))
    out = [_styled(line(list(by), 0, "share"), _BOLD, color), _styled(rule, _DIM, color)]
    more = _styled(f"… {hidden:,} more rows", _DIM, color)
    above = ""
    for place, row in enumerate(shown, 1):
        heads = [each[place - 1] for each in names]
        if hidden and heads[0] == UNATTRIBUTED and more not in out:
            out.append(more)
        repeated, above = len(heads) > 1 and heads[0] == above, heads[0]
        out.append(line(["", *heads[1:]] if repeated else heads, place, _bar(_share(result, row)) if bars else ""))
    if hidden and more not in out:
        out.append(more)
    out.append(_styled(rule, _DIM, color))
    out.append(_styled(line(["total", *[""] * (len(sizes) - 1)], len(shown) + 1, ""), _BOLD, color))
    out += [_styled(each, _DIM, color) for each in coverage_lines(result, width)]
    return "\n".join(out) + "\n"


def as_json(result: Result) -> str:
    return json.dumps(result.as_dict(), ensure_ascii=False, indent=2) + "\n"


def as_csv(result: Result) -> str:
    """The rows with all columns and without the total: a table for programs and spreadsheets, under the catalogue's names."""
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [*result.parameters.by, *(column.name for column in result.report.columns)]
    writer.writerow(names)
    for row in result.rows:
        writer.writerow([_harmless(row[name]) for name in names])
    return out.getvalue()


def as_markdown(result: Result, max_rows: int = 0) -> str:
    shown, hidden = _shown(result, max_rows)
    cells = _cells(result, shown)
    by = list(result.parameters.by)
    table = [by + [column.title for column in cells]]
    table.append(["---"] * len(by) + ["---" if column.kind in ("text", "time") else "---:" for column in cells])
    for place, row in enumerate(shown, 1):
        table.append([str(row[name]) for name in by] + [each[place] for each in cells.values()])
    table.append([f"**{cell}**" if cell else "" for cell in ["total", *[""] * (len(by) - 1), *(each[-1] for each in cells.values())]])
    out = ["| " + " | ".join(map(_escaped, row)) + " |" for row in table]
    out += ["", f"… {hidden:,} more rows"] if hidden else []
    return "\n".join([*out, "", *coverage_lines(result, 0)]) + "\n"


FORMATS: dict[str, Callable[[Result], str]] = {"text": text, "json": as_json, "csv": as_csv, "markdown": as_markdown}


def _shown(result: Result, max_rows: int) -> tuple[list[dict[str, Any]], int]:
    """The rows that are shown, and how many are not. What is unattributed is always shown."""
    first = result.parameters.by[0]
    groups = [row for row in result.rows if row[first] != UNATTRIBUTED]
    rest = [row for row in result.rows if row[first] == UNATTRIBUTED]
    if max_rows and len(rest) > max_rows:  # one for each name of a second grouping
        return [*groups[:max_rows], *rest[:max_rows]], len(groups[max_rows:]) + len(rest[max_rows:]) + result.more
    kept = groups[:max_rows] if max_rows else groups
    return [*kept, *rest], len(groups) - len(kept) + result.more


def _cells(result: Result, shown: list[dict[str, Any]]) -> dict[Column, list[str]]:
    """Each column of a table as text: its title, the rows, the total."""
    columns = [column for column in result.report.columns if column.rank < 9]
    return {column: [column.title, *(figure(row[column.name], column.kind) for row in [*shown, result.total])] for column in columns}


def _layout(result: Result, widths: dict[Column, int], wanted: list[int], width: int) -> tuple[list[Column], bool, list[int]]:
    """What fits into `width`: the columns, whether shares with bars do, and how wide the names may be.

    Names are cut before a column of rank 0 gives way; the other columns, and the bars, come only where the names keep their width.
    """
    by_rank = sorted(widths, key=lambda column: column.rank)
    columns = [column for column in by_rank if column.rank == 0]
    free = width - sum(min(each, _NARROWEST_NAME) + _GAP for each in wanted) + _GAP
    while len(columns) > 1 and sum(widths[column] + _GAP for column in columns) > free:
        columns.pop()
    left = width - sum(each + _GAP for each in wanted) + _GAP - sum(widths[column] + _GAP for column in columns)
    bars = False
    others = [column for column in by_rank if column.rank > 0]
    first = [column for column in others if column.rank <= _BEFORE_BARS]
    for column in [*first, None, *others[len(first) :]]:
        need = (_SHARE if column is None else widths[column]) + _GAP
        if need > left:
            continue
        if column is None:
            main = result.report.main
            if not result.total[main] or len(result.rows) < 2 or any((row[main] or 0) < 0 for row in result.rows):
                continue  # nothing is a share of what differences leave of one another
            bars = True
        else:
            columns.append(column)
        left -= need
    sizes = list(wanted)
    room = width - sum(widths[column] + _GAP for column in columns) - bars * (_GAP + _SHARE) - _GAP * (len(sizes) - 1)
    while sum(sizes) > room and max(sizes) > 5:
        sizes[sizes.index(max(sizes))] -= 1
    return sorted(columns, key=list(widths).index), bars, sizes


def _share(result: Result, row: dict[str, Any]) -> float:
    main = result.report.main
    return (row[main] or 0) / result.total[main]


def _bar(share: float) -> str:
    eighths = round(share * _BAR * 8)
    return f"{plain(share, 'ratio'):>4} " + "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def _harmless(value: Any) -> Any:
    """Text that a spreadsheet does not run: branches and tools are named by anybody. A list is JSON, in one cell."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return "'" + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _escaped(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _styled(line: str, style: str, color: bool) -> str:
    return f"{style}{line}{_OFF}" if color else line
