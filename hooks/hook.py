"""The hooks' entry: checks the Python, sets the path, and leaves the rest to lib/, which is kept compiled.

Written so that any Python can read it: an old one must leave with exit code 3 (run.sh then tries another) and not with a traceback.
run.sh calls it with -I -S: neither the user's nor a repository's files take part, and two thirds of the start are saved.
"""

import sys

if sys.version_info < (3, 9):  # noqa: UP036 - the package's Python is not the hooks'
    sys.exit(3)

import os

here = os.path.dirname(os.path.abspath(__file__))
lib = os.path.join(here, "lib")
# -I leaves the script's directory out of the path. The context rules are the package's own files, loaded without the package.
sys.path[:0] = [lib, os.path.join(os.path.dirname(here), "src", "sp_telemetry", "context")]
if not os.access(lib, os.W_OK) and os.environ.get("CLAUDE_PLUGIN_DATA"):
    sys.pycache_prefix = os.path.join(os.environ["CLAUDE_PLUGIN_DATA"], "pycache")

import calls  # noqa: E402 - the path had to come first

calls.main(sys.argv[1:])
