"""The real Claude Code client, run offline: what the end-to-end tests and the recordings stand on.

    from tests.client import ClaudeCode, MessagesApi, OtlpRecorder, Reply, Script, executable

    script = Script().on("say hello", Reply("Hello."))
    with MessagesApi(script) as api, OtlpRecorder() as otlp:
        client = ClaudeCode(executable("2.1.330"), home=tmp / "home", api_url=api.url)
        run = client.run("say hello", cwd=repository, env=otlp.environment())
        assert run.result["total_cost_usd"] > 0
        assert otlp.of("logs")
"""

from tests.client.install import VERSIONS, executable
from tests.client.messages_api import MessagesApi
from tests.client.neutral import NeutralHomes
from tests.client.otlp_recorder import OtlpRecorder, Recorded
from tests.client.script import Failure, Reply, Script, ToolUse, Usage
from tests.client.session import ClaudeCode, Run

__all__ = [
    "VERSIONS",
    "ClaudeCode",
    "Failure",
    "MessagesApi",
    "NeutralHomes",
    "OtlpRecorder",
    "Recorded",
    "Reply",
    "Run",
    "Script",
    "ToolUse",
    "Usage",
    "executable",
]
