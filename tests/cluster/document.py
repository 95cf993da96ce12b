"""The commands of docs/cluster.md, which the tests run as they stand there."""

import re

from tests.launch.command import ROOT


def command(beginning: str) -> str:
    """The one command of the document that begins so."""
    text = (ROOT / "docs" / "cluster.md").read_text("utf8")
    lines = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)).splitlines()
    (found,) = [line for line in lines if line.startswith(beginning)]
    return found
