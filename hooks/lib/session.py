"""What a session works on, looked at again at each hook; a record is written only when that changed.

    <home>/hooks/<session>.json    the last record (and that it was lost), what files decided, on which repository and branch (a digest),
                                   in which directory

Of the files that were touched it is kept what they decided, and no name of theirs: the last that told a feature, the last that told a
chapter. A chapter that a prompt names counts as one of them. They are forgotten when the branch changes. A step lasts until another
command starts one; a plain prompt goes on with it.

What is written down, here and in the spool, is redacted (names.py). A directory whose name may not be written down is not remembered, and
a subagent's calls are passed over there.

A subagent's calls are taken for the session's: its edits count, its own directory (a worktree of its own) does not. Records are per
session, and agents that run side by side would make it change back and forth.
"""

import os
import sys
import time

import gitfiles
import names
import places
import quickjson
import record
import rules
from locks import Lock

try:
    from _blake2 import blake2b  # `hashlib` costs a third of a start
except ImportError:
    from hashlib import blake2b

sys.modules.setdefault("json", quickjson)  # record.py imports json where it sends; the real one costs as much as starting Python

SEND_S = 0.1
ANSWER_S = 0.03  # the server answers after it committed; a hook need not wait for that
LATER_S = 5
KEPT_DAYS = 30
LOST = "can't wait: the spool can't be written; the next look tells it"


def observe(what, call, home, shell_directory=""):
    """Looks, records what changed, and returns what the client is to be told (at the start of a session) or None."""
    session = call.get("session_id")
    if not session or not isinstance(session, str):
        raise ValueError("no session_id")
    settings = places.Settings(home)
    redaction = names.Redaction(home)
    state_file = _state_file(home, session)
    start = call.get("source", "") if what == "session" else ""
    found = changed = None
    writable = _writable(home)
    with Lock(_lock_of(state_file)):
        state = {} if start in ("startup", "clear") else places.read_json(state_file)
        directory = _directory(call, state)
        if not directory:
            return None
        found, told, repository = _look(what, call, state, settings, directory, redaction)
        before = _record(state.get("record"))
        changed = None if found.same_context(before) and not state.get("lost") else found
        if changed is None and before is not None:
            found = before
        directory = directory if redaction.harmless(directory) else ""
        mine = _put(home, changed) if changed is not None else []  # before the state says that it was told: who dies in between tells it
        if changed is not None or state.get("directory") != directory:
            kept = {"record": found.as_dict(), "told": told, "at": _place(repository), "directory": directory}
            try:
                places.replace(state_file, quickjson.dumps(kept))
            except OSError:
                # What was sent can't be remembered, so only what happens seldom is sent.
                if mine and what not in ("session", "prompt"):
                    places.remove(mine.pop()[0])
        _note_head(session, repository, shell_directory, redaction)
    reached = deliver(home, settings, mine, what) if mine or (writable and what in ("session", "prompt")) else True
    if what == "session":
        import opening

        if not reached:
            opening.start_server(home, settings)
        opening.fill_in(home, settings)
        if start in ("startup", "clear"):
            forget_old(os.path.dirname(state_file))
        return opening.lines(start, found, home, settings, reached)
    return None


def _put(home, changed):
    """A new record as it is sent: with the file where it waits, '' where the disk does not take it."""
    import spool

    return [(spool.Spool(home).put(changed.as_dict()), changed)]


def deliver(home, settings, mine, what):
    """Sends a new record with those that wait. False where nobody listens; a record that was not sent waits then."""
    import spool

    waiting = spool.Spool(home)
    if not mine and not waiting.waiting():
        return True if what != "session" else _listens(settings)
    import wire

    sending = mine
    try:
        connection = wire.Connection(settings.port("otlp_http"), SEND_S)
    except OSError as error:
        kept = _keep(waiting, sending, home)
        places.log(home, what, f"the server was not reached ({type(error).__name__}); the record {'waits' if kept else LOST}")
        return False
    try:
        sending = [(path, _record(values)) for path, values in waiting.claim()] + mine
        if not sending:
            connection.close()
            return True
        body = record.to_otlp_json([one for _, one in sending])
        connection.send("/v1/logs", body, ("Content-Type: application/json",))
    except (OSError, ValueError) as error:  # a part may have gone out; no answer can come to that
        _not_taken(waiting, sending, home, what, error)
        return True
    try:
        _settle(connection, ANSWER_S, waiting, sending, home, what)
    except wire.TIMEOUTS as error:

        def patiently():
            try:
                _settle(connection, LATER_S, waiting, sending, home, what)
            except (OSError, ValueError) as error:
                _not_taken(waiting, sending, home, what, error)

        if not _later(patiently):
            _not_taken(waiting, sending, home, what, error)
    except (OSError, ValueError) as error:
        _not_taken(waiting, sending, home, what, error)
    return True


def _settle(connection, seconds, waiting, sending, home, what):
    status, _ = connection.answer(seconds)
    if 200 <= status < 300:
        waiting.delivered([path for path, _ in sending])
    else:
        _not_taken(waiting, sending, home, what, f"status {status}")


def _not_taken(waiting, sending, home, what, reason):
    kept = _keep(waiting, sending, home)
    reason = reason if isinstance(reason, str) else type(reason).__name__
    places.log(home, what, f"the server did not take {len(sending)} records ({reason}); {'they wait' if kept else 'one ' + LOST}")


def _keep(waiting, sending, home):
    """What was not sent waits. False where the disk did not take one: the next look tells what that would have told."""
    waiting.give_back([path for path, _ in sending])
    lost = [one for path, one in sending if not path]
    for one in lost:
        state_file = _state_file(home, one.session_id)
        with Lock(_lock_of(state_file)):
            state = places.read_json(state_file)
            if isinstance(state.get("record"), dict) and state["record"].get("record_id") == one.record_id:
                try:
                    places.replace(state_file, quickjson.dumps({**state, "lost": True}))
                except OSError:
                    places.remove(state_file)  # what knows nothing tells all at the next look
    return not lost


def _later(work):
    """Does `work` in a process of its own, so that neither this hook nor the client waits. False where that can't be."""
    try:
        if os.fork():
            return True
    except (AttributeError, OSError):
        return False
    try:
        detach()
        work()
    finally:  # if it failed, its claims run out, and a later hook sends them again
        os._exit(0)


def detach():
    """Out of the client's reach: it waits for its hooks' output to be closed, and ends their process group when it ends."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(nothing, target)


def forget_old(folder):
    """States of sessions that nobody has continued for a month."""
    oldest = time.time() - KEPT_DAYS * 86_400
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("counters") and entry.stat().st_mtime < oldest:
                    os.unlink(entry.path)
    except OSError:
        pass


def _look(what, call, state, settings, directory, redaction):
    repository = gitfiles.read(directory)
    config = {}
    if os.path.exists(os.path.join(repository.toplevel or directory, ".claude", "telemetry.toml")):
        import configfile

        config = configfile.read(repository.toplevel or directory)[0]
    told = _told(state) if state.get("at") == _place(repository, state.get("at")) else {}
    specs = gitfiles.spec_directories(repository.toplevel, rules.spec_roots(config))
    place = gitfiles.relative(repository, directory)
    prompt = call.get("prompt") if what == "prompt" else ""
    decision = rules.decide(repository.branch, place, (), specs, prompt, config)
    touched = _touched(what, call, repository, directory)
    if isinstance(prompt, str) and any(c in "/0123456789" for c in prompt):
        import mentions

        named = mentions.chapter(prompt, repository, directory, config, gitfiles=gitfiles, rules=rules)
        if named:
            chapter = rules.decide(files=[(named, "prompt")], config=config).chapter.value
            if redaction.clean(chapter) != (told.get("chapter") or decision.chapter).value:
                touched = (named, "prompt")
    if touched:
        later = rules.decide(repository.branch, place, [touched], specs, prompt, config)
        if later.feature.source == "spec_path":
            told.update(feature=later.feature, spec_directory=later.spec_directory)
        if (later.chapter.source or later.part.source) in ("file", "prompt"):
            told.update(chapter=later.chapter, part=later.part)
        told = {name: one._replace(value=redaction.clean(one.value), why="") for name, one in told.items()}
    decision = decision._replace(**told)
    step = decision.step.value
    if what == "edit" and call.get("tool_name") == "Skill":
        asked = call.get("tool_input")
        step = rules.step_of_command(asked.get("skill") if isinstance(asked, dict) else "", config).value
    if not step:
        last = state.get("record")
        step = last.get("step", "") if isinstance(last, dict) else ""
    found = record.make(
        call["session_id"], str(call.get("hook_event_name") or what)[:40], repository, decision, clean=redaction.clean,
        project=rules.project_of(config, repository.project).value, person=redaction.person(settings.text("person")),
    )
    return found._replace(step=redaction.clean(step)), told, repository


def _told(state):
    """What files decided before, as findings."""
    given = state.get("told")
    pairs = given.items() if isinstance(given, dict) else ()
    good = {name: one for name, one in pairs if isinstance(one, list) and len(one) == 4 and isinstance(one[0], str)}
    return {name: rules.Finding(*good[name]) for name in ("feature", "spec_directory", "chapter", "part") if name in good}


def _place(repository, before=""):
    """A repository and its branch as a digest; with the salt of the one `before`, so that they can be compared."""
    salt = before[:32] if isinstance(before, str) and len(before) == 64 else record.new_id()
    text = repository.git_dir + "\0" + repository.branch
    return salt + blake2b(text.encode("utf-8", "surrogatepass"), key=salt.encode("ascii", "replace"), digest_size=16).hexdigest()


def _touched(what, call, repository, directory):
    """The edited file as the rules want it. One in another worktree of this repository is named from that one's top."""
    given = call.get("tool_input")
    path = (given.get("file_path") or given.get("notebook_path")) if what == "edit" and isinstance(given, dict) else None
    if not path or not isinstance(path, str) or call.get("tool_name") == "Skill":
        return ""
    touched = gitfiles.relative(repository, path, directory)
    if not touched and repository.common_dir:
        other = gitfiles.read(os.path.dirname(os.path.join(directory, path)))
        if other.common_dir == repository.common_dir:
            touched = gitfiles.relative(other, path, directory)
    return touched


def _directory(call, state):
    given = call.get("cwd")
    if call.get("agent_id") and isinstance(state.get("directory"), str):
        return state["directory"]
    return given if isinstance(given, str) and given else os.getcwd()


def _record(values):
    try:
        return record.ContextRecord.from_dict(values) if isinstance(values, dict) else None
    except TypeError:
        return None


def _note_head(session, repository, shell_directory, redaction):
    """For run.sh: what has to be as it was for the next Bash call to need no look."""
    data = os.environ.get("CLAUDE_PLUGIN_DATA")
    if not data or not shell_directory or not repository.git_dir:
        return
    if session != os.environ.get("CLAUDE_CODE_SESSION_ID") or session != _file_name(session):
        return
    head = os.path.join(repository.git_dir, "HEAD")
    noted = "{}\n{}\n{}".format(shell_directory, head, places.read(head, 4096).partition("\n")[0])
    if noted.count("\n") != 2 or not redaction.harmless(noted):
        return
    path = os.path.join(data, "heads", session)
    if places.read(path, 16384) == noted + "\n":
        return
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        places.replace(path, noted + "\n")
        forget_old(os.path.dirname(path))
    except (OSError, ValueError):
        pass


def _listens(settings):
    import wire

    try:
        wire.Connection(settings.port("otlp_http"), SEND_S).close()
        return True
    except OSError as error:
        return isinstance(error, wire.TIMEOUTS)


def _writable(home):
    try:
        return os.access(places.folder(home, "hooks"), os.W_OK)
    except OSError:
        return False


def _state_file(home, session):
    return os.path.join(home, "hooks", _file_name(session) + ".json")


def _lock_of(state_file):
    return state_file[:-5] + ".lock"


def _file_name(session):
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in session[:80])
