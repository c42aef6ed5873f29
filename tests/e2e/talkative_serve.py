"""`sp-telemetry serve` that says each complaint about a request each time, where else it says one of a kind a minute.

    python tests/e2e/talkative_serve.py [arguments of serve]
"""

import sys

from sp_telemetry.cli.main import main
from sp_telemetry.serve import listener

if __name__ == "__main__":
    listener._Seldom.EVERY_S = 0
    sys.exit(main(["serve", *sys.argv[1:]]))
