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

import gitfiles
import names
import places
import quickjson
import record
import rules
import states
from locks import Lock

try:
    from _blake2 import blake2b  # `hashlib` costs a third of a start
except ImportError:
    from hashlib import blake2b

sys.modules.setdefault("json", quickjson)  # record.py imports json where it sends; the real one costs as much as starting Python


def observe(what, call, home, shell_directory=""):
    """Looks, records what changed, and returns what the client is to be told (at the start of a session) or None."""
    session = call.get("session_id")
    if not session or not isinstance(session, str):
        raise ValueError("no session_id")
    settings = places.Settings(home)
    redaction = names.Redaction(home)
    state_file = states.path_of(home, session)
    start = call.get("source", "") if what == "session" else ""
    found = changed = None
    writable = _writable(home)
    with Lock(states.lock_of(state_file)):
        state = {} if start in ("startup", "clear") else places.read_json(state_file)
        directory = _directory(call, state)
        if not directory:
            return None
        found, told, repository = _look(what, call, state, settings, directory, redaction)
        before = states.record_of(state.get("record"))
        changed = None if found.same_context(before) and not state.get("lost") else found
        if changed is None and before is not None:
            found = before
        directory = directory if redaction.harmless(directory) else ""
        mine = []
        if changed is not None:  # before the state says that it was told: who dies in between tells it
            import delivery

            mine = delivery.put(home, changed)
        if changed is not None or state.get("directory") != directory:
            kept = {"record": found.as_dict(), "told": told, "at": _place(repository), "directory": directory}
            try:
                places.replace(state_file, quickjson.dumps(kept))
            except OSError:
                # What was sent can't be remembered, so only what happens seldom is sent.
                if mine and what not in ("session", "prompt"):
                    places.remove(mine.pop()[0])
        _note_head(session, repository, shell_directory, redaction)
    reached = True
    if mine or (writable and what in ("session", "prompt")):
        import delivery

        reached = delivery.deliver(home, settings, mine, what)
    if what == "session":
        import opening

        if not reached or opening.is_outdated(home):
            opening.start_server(home, settings)
        opening.fill_in(home, settings)
        if start in ("startup", "clear"):
            states.forget_old(os.path.dirname(state_file))
        return opening.lines(start, found, home, settings, reached)
    return None


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


def _note_head(session, repository, shell_directory, redaction):
    """For run.sh: what has to be as it was for the next Bash call to need no look."""
    data = os.environ.get("CLAUDE_PLUGIN_DATA")
    if not data or not shell_directory or not repository.git_dir:
        return
    if session != os.environ.get("CLAUDE_CODE_SESSION_ID") or session != states.file_name(session):
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
        states.forget_old(os.path.dirname(path))
    except (OSError, ValueError):
        pass


def _writable(home):
    try:
        return os.access(places.folder(home, "hooks"), os.W_OK)
    except OSError:
        return False
