"""A report as text (terminals, and Claude Code's own window), JSON, CSV or Markdown. Asks nothing; gets a `Result`.

The table is laid out here and not by rich: `report` is asked for often, importing rich takes as long as all the rest, and the same
text has to go where there is no terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from sp_telemetry.reports.catalogue import UNATTRIBUTED, Column
from sp_telemetry.reports.coverage import lines as coverage_lines
from sp_telemetry.reports.figures import cut, figure, pad, plain, width_of
from sp_telemetry.reports.run import Result

BAR_WIDTH = 12
_DIM, _BOLD, _OFF = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_BLOCKS = " ▏▎▍▌▋▊▉█"
_GAP = 2
_NARROWEST_NAME = 12


def text(result: Result, width: int = 80, max_rows: int = 20, color: bool = False) -> str:
    """A table of at most `width` columns and `max_rows` rows (0: all), a line for the total, and what stands under it."""
    columns = [column for column in result.report.columns if column.rank < 9]
    shown, hidden = _shown(result, max_rows)
    body = [*shown, result.total]
    share = _share(result)
    cells = {column.name: [figure(row.get(column.name), column.kind) for row in body] for column in columns}
    widths = {column.name: max(width_of(column.title), *map(width_of, cells[column.name])) for column in columns}
    names = [[str(row.get(by, "")) for row in shown] for by in result.parameters.by]
    wanted = [max(width_of(by), *map(width_of, each), 5) for by, each in zip(result.parameters.by, names, strict=True)]

    room = width - _GAP * len(wanted)
    least = sum(min(each, _NARROWEST_NAME) for each in wanted)
    kept: list[Column] = []
    extras = sorted(columns, key=lambda column: column.rank)
    used = 0
    for column in extras:
        need = widths[column.name] + _GAP
        fits = used + need + (sum(wanted) if column.rank else least) <= room
        if fits or not kept:
            kept.append(column)
            used += need
    kept.sort(key=columns.index)
    bars = share is not None and used + sum(wanted) + BAR_WIDTH + 5 + _GAP <= room
    naming = _fitted(wanted, room - used - _GAP * 0 - (BAR_WIDTH + 5 + _GAP if bars else 0))

    def line(place: int, row: dict, heads: list[str]) -> str:
        parts = [pad(cut(head, size), size) for head, size in zip(heads, naming, strict=True)]
        parts += [pad(cells[column.name][place], widths[column.name], right=True) for column in kept]
        if bars and share:
            parts.append(_bar(share(row)))
        return (" " * _GAP).join(parts).rstrip()

    heads = [pad(cut(by, size), size) for by, size in zip(result.parameters.by, naming, strict=True)]
    heads += [pad(column.title, widths[column.name], right=True) for column in kept] + (["share"] if bars else [])
    top = (" " * _GAP).join(heads).rstrip()
    rule = "─" * min(width, sum(naming) + used + _GAP * (len(naming) - 1) + (BAR_WIDTH + 5 + _GAP if bars else 0))
    out = [_styled(top, _BOLD, color), _styled(rule, _DIM, color)]
    before = ""
    for place, row in enumerate(shown):
        heads = [names[index][place] for index in range(len(names))]
        if len(heads) > 1 and heads[0] == before and place:
            heads[0] = ""  # said above
        else:
            before = heads[0]
        if hidden and place == len(shown) - 1 and heads[-1] == UNATTRIBUTED and len(heads) == 1:
            out.append(_styled(f"… {hidden:,} more rows", _DIM, color))
        out.append(line(place, row, heads))
    if hidden and not (len(names) == 1 and shown and names[0][-1] == UNATTRIBUTED):
        out.append(_styled(f"… {hidden:,} more rows", _DIM, color))
    out.append(_styled(rule, _DIM, color))
    out.append(_styled(line(len(shown), result.total, ["total", *[""] * (len(naming) - 1)]), _BOLD, color))
    out += [_styled(each, _DIM, color) for each in coverage_lines(result, width)]
    return "\n".join(out) + "\n"


def as_json(result: Result) -> str:
    return json.dumps(result.as_dict(), ensure_ascii=False, indent=2) + "\n"


def as_csv(result: Result) -> str:
    """The rows with all columns, without the total: a table for programs and spreadsheets. Names are as the report's columns."""
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [*result.parameters.by, *(column.name for column in result.report.columns)]
    writer.writerow(names)
    # A cell that begins like a formula would be run by a spreadsheet, and branches and tools are named by anybody.
    for row in result.rows:
        writer.writerow(["'" + value if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value for value in map(row.get, names)])
    return out.getvalue()


def as_markdown(result: Result, max_rows: int = 0) -> str:
    columns = [column for column in result.report.columns if column.rank < 9]
    shown, hidden = _shown(result, max_rows)
    by = result.parameters.by
    heads = [*by, *(column.title for column in columns)]
    out = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(by) + "".join("---|" if c.kind in ("text", "time") else "---:|" for c in columns)]
    for row in shown:
        out.append("| " + " | ".join([*(_escaped(str(row[name])) for name in by), *(_escaped(figure(row.get(c.name), c.kind)) for c in columns)]) + " |")
    out.append("| " + " | ".join(["**total**", *[""] * (len(by) - 1), *(f"**{figure(result.total.get(c.name), c.kind)}**" for c in columns)]) + " |")
    if hidden:
        out += ["", f"… {hidden:,} more rows"]
    return "\n".join([*out, "", *(_escaped(line) + "  " for line in coverage_lines(result, 0))]) + "\n"


FORMATS: dict[str, Callable[[Result], str]] = {"table": text, "json": as_json, "csv": as_csv, "markdown": as_markdown}


def _shown(result: Result, max_rows: int) -> tuple[list[dict], int]:
    """The rows that are shown, and how many are not. What is unattributed is always shown."""
    first = result.parameters.by[0]
    groups = [row for row in result.rows if row[first] != UNATTRIBUTED]
    rest = [row for row in result.rows if row[first] == UNATTRIBUTED]
    kept = groups[:max_rows] if max_rows else groups
    return [*kept, *rest], len(groups) - len(kept) + result.more


def _share(result: Result) -> Callable[[dict], float] | None:
    main = result.report.main
    whole = result.total.get(main) or 0
    return (lambda row: (row.get(main) or 0) / whole) if whole else None


def _bar(share: float) -> str:
    eighths = round(share * BAR_WIDTH * 8)
    bar = "█" * (eighths // 8) + (_BLOCKS[eighths % 8] if eighths % 8 else "")
    return f"{plain(share, 'ratio'):>4} {bar}"


def _fitted(wanted: list[int], room: int) -> list[int]:
    """Widths for the names: what they want where there is room, else the widest gives way first."""
    sizes = list(wanted)
    while sum(sizes) > room and max(sizes) > 5:
        sizes[sizes.index(max(sizes))] -= 1
    return sizes


def _escaped(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _styled(line: str, style: str, color: bool) -> str:
    return f"{style}{line}{_OFF}" if color else line
