"""``make schema``: schemathesis against a gateway of its own, over the document that it serves.

It makes up calls from ``/openapi.json``, sound and broken ones, and fails where an answer is a 5xx, where its status,
media type, headers or body are not in the document, or where a broken call is taken for a sound one. The seed is fixed,
so a run finds what the one before it found.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from timedb.contract.settings import ServerSettings, load_settings
from timedb.run.launch import start_service

HOOKS = Path(__file__).with_name("hooks.py")
LEFT_OUT = (
    "positive_data_acceptance",  # which parameters belong together is in the texts; OpenAPI cannot say it
    "allow_header_conformance",  # /series/labels is a /series/{series_id}, too: Allow names the calls of both
    "ignored_auth",  # the lake is open: the examples of the document are of one
)
SEED = 1


def main(command: str, *arguments: str) -> int:
    """Run it.

    Args:
        command: The executable of schemathesis.
        arguments: Its options beside ours, which they come after.

    Returns:
        Its exit status; 0: nothing was found.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(ServerSettings, lake=f"{folder}/lake", flight_port=0, rest_port=0)
        with start_service(settings) as service:
            options = [f"--exclude-checks={','.join(LEFT_OUT)}", "--continue-on-failure", "--request-timeout=60"]
            options += [f"--seed={SEED}", "--generation-database=none", "--warnings=off", *arguments]
            return subprocess.run(
                [Path(command).absolute(), "run", f"{service.rest_url}/openapi.json", *options],
                cwd=folder,  # where it leaves what it found
                env={"SCHEMATHESIS_HOOKS": HOOKS.stem, "PYTHONPATH": str(HOOKS.parent)},
                check=False,
            ).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
