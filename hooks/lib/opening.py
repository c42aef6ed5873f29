"""The start of a session: a server that is down or of an older version is started, gaps are filled in, the model gets one line, the
person another one."""

import os
import time

import places
import rules
from delivery import detach
from locks import Lock

ASK_S = 0.1
AGAIN_S = 60  # a server that is starting is not started again before this
FILL_IN_S = 3600


def lines(source, found, home, settings, reached):
    """What SessionStart prints: who this session's cost goes to."""
    told = {}
    known = _known(found)
    if known:
        told["hookSpecificOutput"] = {
            "hookEventName": "SessionStart",
            "additionalContext": "sp-telemetry counts this session under " + known + ".",
        }
    if source != "compact" and settings.on("session_line"):
        shown = _shown(found)
        if shown:
            cost = today(home, settings) if reached else ""
            told["systemMessage"] = " · ".join([*shown, cost] if cost else shown)
    return told or None


def today(home, settings):
    """`today $1.23` from the server, '' where it does not say so in time."""
    import wire

    secret = places.read(os.path.join(home, "secrets", "telemetry_reader"), 4096).strip()
    zone = settings.text("timezone")
    if zone and all(c.isalnum() or c in "/_+-" for c in zone):
        since = f"toStartOfDay(now('{zone}'))"
    else:
        now = time.localtime()
        since = f"fromUnixTimestamp({int(time.mktime((*now[:3], 0, 0, 0, 0, 0, -1)))})"
    sql = "SELECT count(), round(sum(cost_usd), 2) FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request' AND timestamp >= "
    headers = ["X-ClickHouse-User: telemetry_reader", "X-ClickHouse-Key: " + secret] if secret else []
    try:
        connection = wire.Connection(settings.port("clickhouse"), ASK_S)
        connection.send("/?max_execution_time=1", (sql + since + " FORMAT TabSeparated").encode(), headers)
        status, body = connection.answer()
        count, cost = body.decode("utf-8", "replace").split()
        return f"today ${float(cost):.2f}" if status == 200 and int(count) else ""
    except (OSError, ValueError):
        return ""


def start_server(home, settings):
    """Starts the embedded server and does not wait for it; of sessions that start at once, one does."""
    if settings.text("backend") == "compose":  # Docker starts those containers, with the machine
        return False
    if not settings.made or not settings.on("autostart") or not _due(os.path.join(home, "hooks", "starting"), AGAIN_S):
        return False
    return _start([command(), "up", "--quiet"], home)


def is_outdated(home):
    """Whether the server that runs is of a version before ours: the plugin was updated since it was started."""
    runs = _version(os.path.join(home, "server.json"))
    return runs != [] and runs < _version(os.path.join(_root(), ".claude-plugin", "plugin.json"))


def _version(path):
    """Its numbers; none where the file does not tell."""
    parts = [places.whole(part) for part in str(places.read_json(path).get("version", "")).split(".")]
    return parts if min(parts) >= 0 else []


def fill_in(home, settings):
    """What telemetry missed, from the transcripts, where set-up was told to: at most hourly, and not waited for."""
    if not settings.made or not settings.chosen("backfill") or not _due(os.path.join(home, "hooks", "backfill"), FILL_IN_S):
        return False
    return _start([command(), "backfill", "--quiet"], home)


def _due(path, seconds):
    """Whether this was last done that long ago; if so it counts as done now. Of sessions that ask at once, one is told yes."""
    with Lock(path + ".lock", wait=False) as lock:
        try:
            if not lock.taken or time.time() - os.stat(path).st_mtime < seconds:
                return False
        except FileNotFoundError:
            pass
        except OSError:
            return False
        try:
            places.replace(path, str(os.getpid()))
        except OSError:
            return False  # without a mark that holds, every session would do it
    return True


def command():
    """The command line of this checkout; SP_TELEMETRY_CLI names another one."""
    return os.environ.get("SP_TELEMETRY_CLI") or os.path.join(_root(), "scripts", "sp-telemetry")


def _root():
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _start(arguments, home):
    """A process of its own session, with nothing of ours open: it outlives us and Claude Code, and holds neither up."""
    try:
        first = os.fork()
    except (AttributeError, OSError):
        return False
    if first:
        os.waitpid(first, 0)
        return True
    try:
        if os.fork():
            os._exit(0)
        detach()
        os.closerange(3, 256)
        os.chdir(home)
        os.execv(arguments[0], arguments)
    finally:
        os._exit(127)


def _known(found):
    parts = []
    if found.feature:
        parts.append("feature " + found.feature + (f" ({found.spec_directory})" if found.spec_directory else ""))
    if found.chapter:
        parts.append("chapter " + found.chapter)
    return ", ".join(parts)


def _shown(found):
    shown = []
    if found.feature:
        shown.append(" ".join(filter(None, (rules.feature_number(found.feature), rules.feature_name(found.feature)))))
    if found.chapter:
        shown.append("chapter " + _number(found.chapter))
    return shown


def _number(chapter):
    """`33` of `33-some-chapter` and of `chapter-33`; the whole name where it has no number."""
    rest = chapter.lstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_. ") if chapter[:2].lower() == "ch" else chapter
    number = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return number or chapter
