"""The book that the recorded sessions write: its repository, and what is asked and answered in each session."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.client import Failure, NeutralHomes, Reply, Script, ToolUse

BOOK = "/home/author/book"
WORKTREE = "/home/author/book-018"
GRACE = "/home/grace/book"
F17, F18 = "017-usage-data-collection", "018-cost-reports"
C33 = "book/05-part/33-agent-telemetry/chapter.md"
C34 = "book/05-part/34-cost-reports/chapter.md"
C41 = "book/06-part/41-privacy/chapter.md"

FILES = {
    "README.md": "# Working with agents\n\nA book in parts and chapters. Each feature has a branch and a directory in `specs`.\n",
    f"specs/{F17}/spec.md": "# Feature 017: usage data collection\n\nStatus: draft\n\n"
                            "## Requirements\n\n- R1: every request is counted once.\n",
    f"specs/{F18}/spec.md": "# Feature 018: cost reports\n\nStatus: draft\n\n## Requirements\n\n- R1: cost by chapter and day.\n",
    C33: "# 33 Agent telemetry\n\nAn agent that nobody measures cannot be improved.\n\n## Tokens\n\nTODO\n\n## Exercise\n\nTODO\n",
    C34: "# 34 Cost reports\n\nA report answers one question.\n\n## By chapter\n\nTODO\n\n## By day\n\nTODO\n",
    C41: "# 41 Privacy\n\nWhat is not stored cannot leak.\n\n## Hashes\n\nTODO\n",
    "validate.sh": "#!/bin/sh\n# A chapter is valid when nothing is left to do in it.\nif grep -n TODO \"$1/chapter.md\"; then\n"
                   "  echo \"validation failed: $1\" >&2\n  exit 1\nfi\necho \"valid: $1\"\n",
    ".claude/agents/checker.md": "---\nname: checker\ndescription: Checks a specification\ntools: Read\n---\nYou check specifications.\n",
    ".claude/commands/specify.md": "---\ndescription: Write a specification\n---\nWrite the specification for: $ARGUMENTS\n",
    ".claude/commands/implement.md": "---\ndescription: Write the text that the specification asks for\n---\nImplement: $ARGUMENTS\n",
    ".claude/commands/validate.md": "---\ndescription: Check a chapter\n---\nRun ./validate.sh and repair what it finds: $ARGUMENTS\n",
}


@dataclass(frozen=True)
class Models:
    """Names that the version knows a price for."""

    main: str
    second: str
    small: str = "haiku"


@dataclass(frozen=True)
class Turn:
    """One run of `claude -p`. The first of a session starts it, the others resume it."""

    prompt: str
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Session:
    """A session of the book. `before` is run by git in the checkout first; `later` turns come at the very end."""

    scenario: str
    model: str
    turns: tuple[Turn, ...]
    cwd: str = BOOK
    user: str = "author"
    before: tuple[str, ...] = ()
    later: tuple[Turn, ...] = ()
    beside: str | None = None


def sessions(models: Models) -> list[Session]:
    return [
        Session("chapter-33", models.main, (
            Turn("/specify what chapter 33 says about cache tokens"),
            Turn("/implement the section on tokens of chapter 33"),
            Turn("Shorten the introduction of chapter 33."),
        ), before=("switch", "-q", F17)),
        Session("switch-branch", models.second, (
            Turn("/implement the exercise of chapter 33, then go on with chapter 34"),
            Turn("Say in chapter 34 how days are cut."),
        ), before=("switch", "-q", F17)),
        Session("failing-tools", models.second, (Turn("/validate chapter 34"),), before=("switch", "-q", F18)),
        Session("api-errors", models.main, (
            Turn("List what is left to do in chapter 34."),
            Turn("Summarise chapter 34 in one sentence."),
            Turn("Translate the title of chapter 34.", {"CLAUDE_CODE_MAX_RETRIES": "1"}),
        ), before=("switch", "-q", F18)),
        Session("subagents", models.main, (Turn("Have chapter 34 reviewed, then its spec."),), before=("switch", "-q", F18)),
        Session("resumed", models.main, (Turn("Draft the opening of chapter 41."),), before=("switch", "-q", "main"),
                later=(Turn("Go on with chapter 41: the section on hashes."),)),
        Session("worktree", models.main, (Turn("/implement the overview of chapter 34"),), cwd=WORKTREE,
                before=("switch", "-q", F17), beside="beside-worktree"),
        Session("beside-worktree", models.second, (Turn("/implement the overview of chapter 33"),)),
        Session("detached", models.second, (Turn("What is this repository about?"),), cwd=GRACE, user="grace"),
    ]


def script(cache: str) -> Script:
    """The model's side, prompt by prompt."""

    def read(path: str, top: str = BOOK) -> ToolUse:
        return ToolUse("Read", file_path=f"{top}/{path}")

    def edit(path: str, old: str, new: str, top: str = BOOK) -> ToolUse:
        return ToolUse("Edit", file_path=f"{top}/{path}", old_string=old, new_string=new)

    def bash(command: str, description: str) -> ToolUse:
        return ToolUse("Bash", command=command, description=description)

    def commit(message: str) -> ToolUse:
        return bash(f"git add -A && git commit -q -m '{message}'", "Commit the work")

    spec = f"specs/{F17}/spec.md"
    tokens = "Input, output, cache reads and cache writes are four numbers with four prices.\n\nA cache read is cheap."
    return (
        Script(cache)
        .on("what chapter 33 says about cache tokens",
            Reply("I look at the specification first.", read(spec), read(C33)),
            Reply("", edit(spec, "counted once.", "counted once.\n- R2: cache tokens have columns of their own.")),
            Reply("R2 now asks for cache tokens in columns of their own."))
        .on("the section on tokens of chapter 33",
            Reply("", read(C33)),
            Reply("Now the section.", edit(C33, "## Tokens\n\nTODO", f"## Tokens\n\n{tokens}")),
            Reply("", ToolUse("Write", file_path=f"{BOOK}/{C33.replace('chapter.md', 'figures/tokens.md')}",
                              content="| kind | price |\n|---|---|\n| input | 1 |\n| cache read | 0.1 |\n")),
            Reply("", commit("Chapter 33: tokens")),
            Reply("The section on tokens is written and committed.", delay=0.1))
        .on("Shorten the introduction of chapter 33.",
            Reply("", edit(C33, "An agent that nobody measures cannot be improved.", "Measure first.")),
            Reply("", bash("cd book/05-part/33-agent-telemetry && wc -w chapter.md", "Count the words that are left")),
            Reply("Shortened to two words."))
        .on("the exercise of chapter 33, then go on with chapter 34",
            Reply("First chapter 33.", read(C33)),
            Reply("", edit(C33, "## Exercise\n\nTODO", "## Exercise\n\nCount the requests of one session by hand.")),
            Reply("", commit("Chapter 33: exercise")),
            Reply("On to the other feature.", bash(f"git switch {F18}", "Go to the branch of feature 018")),
            Reply("", read(C34)),
            Reply("", edit(C34, "A report answers one question.", "A report answers one question, and says how far to trust it.")),
            Reply("", commit("Chapter 34: opening")),
            Reply("Both chapters are done.", delay=0.1))
        .on("Say in chapter 34 how days are cut.",
            Reply("", edit(C34, "## By day\n\nTODO", "## By day\n\nDays are cut in a stated time zone.")),
            Reply("", commit("Chapter 34: days")),
            Reply("Said."))
        .on("validate.sh and repair what it finds: chapter 34",
            Reply("", bash("./validate.sh book/05-part/34-cost-reports", "Validate chapter 34")),
            Reply("One thing is left to do.", read("book/05-part/34-cost-reports/notes.md"), read(C34)),
            Reply("", edit(C34, "## By week\n\nTODO", "## By week\n\nNot needed.")),
            Reply("", edit(C34, "## By chapter\n\nTODO", "## By chapter\n\nTODO: a chapter is known from its files.")),
            Reply("", bash("./validate.sh book/05-part/34-cost-reports", "Validate chapter 34 again")),
            Reply("", edit(C34, "TODO: a chapter is known", "A chapter is known"),
                  bash(f"sed -i /^TODO$/d {C34}", "Take out the rest")),
            Reply("", bash("./validate.sh book/05-part/34-cost-reports", "Validate chapter 34 once more")),
            Reply("", commit("Chapter 34: valid")),
            Reply("Chapter 34 is valid after two failures."))
        .on("List what is left to do in chapter 34.",
            Reply("", bash("grep -c TODO book/05-part/34-cost-reports/chapter.md || true", "Count what is left"),
                  failures=(Failure(529), Failure(429, "Rate limited", "1"))),
            Reply("Nothing is left.", failures=(Failure(500, "Internal server error"),)))
        .on("Summarise chapter 34 in one sentence.", Failure(400, "metadata.user_id: value is not allowed", None))
        .on("Translate the title of chapter 34.", Failure(529))
        .on("Have chapter 34 reviewed, then its spec.",
            Reply("A reviewer reads the chapter.", ToolUse(
                "Agent", description="Review chapter 34", subagent_type="general-purpose", model="haiku",
                run_in_background=False, prompt="Review the chapter on cost reports and name its weakest sentence.")),
            Reply("And one the specification.", ToolUse(
                "Agent", description="Review spec 018", subagent_type="checker", model="sonnet",
                run_in_background=False, prompt="Find what the spec of feature 018 forgets.")),
            Reply("Both reviews are in.", delay=0.1))
        .on("Review the chapter on cost reports and name its weakest sentence.",
            Reply("", read(C34)), Reply("", bash("wc -w book/05-part/34-cost-reports/chapter.md", "Count words")),
            Reply("The weakest sentence is the first."))
        .on("Find what the spec of feature 018 forgets.",
            Reply("", read(f"specs/{F18}/spec.md")), Reply("It forgets the time zone."))
        .on("Draft the opening of chapter 41.",
            Reply("", read(C41)),
            Reply("", edit(C41, "What is not stored cannot leak.", "What is not stored cannot leak; what is hashed can be guessed.")),
            Reply("The opening is drafted."))
        .on("Go on with chapter 41: the section on hashes.",
            Reply("", read(C41)),
            Reply("", edit(C41, "## Hashes\n\nTODO", "## Hashes\n\nA short secret has a short list of guesses.")),
            Reply("The section on hashes is written."))
        .on("the overview of chapter 34",
            Reply("", read(C34, WORKTREE), delay=0.4),
            Reply("", edit(C34, "# 34 Cost reports\n", "# 34 Cost reports\n\nOverview: by chapter, by day.\n", WORKTREE), delay=0.4),
            Reply("The overview stands.", delay=0.3))
        .on("the overview of chapter 33",
            Reply("", read(C33), delay=0.3),
            Reply("", edit(C33, "# 33 Agent telemetry\n", "# 33 Agent telemetry\n\nOverview: tokens, an exercise.\n"), delay=0.5),
            Reply("The overview stands.", delay=0.3))
        .on("What is this repository about?",
            Reply("", read("README.md", GRACE), bash("git log --oneline | head -5", "See the history")),
            Reply("It is a book about working with agents."))
    )


def build(homes: NeutralHomes) -> None:
    """The repository in /home/author/book, grace's clone of it, and the branches."""
    top = homes.directory / "author" / "book"
    for path, text in FILES.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
    (top / "validate.sh").chmod(0o755)
    for user, name in (("author", "Ada Author"), ("grace", "Grace Reader")):
        config = homes.directory / user / ".gitconfig"
        config.write_text(f"[user]\n\tname = {name}\n\temail = {user}@example.org\n[init]\n\tdefaultBranch = main\n")
    homes.hand_over()

    def git(*args: str, user: str = "author", cwd: str = BOOK) -> None:
        homes.run("git", *args, user=user, cwd=cwd)

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "The book begins")
    for branch in (F17, F18):
        git("branch", branch)
    # Grace has a copy of her own, at a commit and on no branch. Her home is another, so is her installation.
    source = Path(BOOK)
    git("clone", "-q", "--no-local", "--config", "safe.directory=*", str(source), GRACE, user="grace", cwd="/home/grace")
    git("checkout", "-q", "--detach", "HEAD", user="grace", cwd=GRACE)
