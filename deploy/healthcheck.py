"""Ask the server of this machine how it is: status 0 when well, 1 when not, with a line that says why.

For HEALTHCHECK of the image and for units that need the server: `--database` asks for the database, too; `--wait S`
asks again for so many seconds. Where the server is its settings say: environment and .env, not its flags.
"""

from __future__ import annotations

import argparse
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from app.errors import SettingsError
from app.settings import load

TIMEOUT_S = 4.0
PAUSE_S = 1.0


def trouble(url: str) -> str:
    """Return why the server at this address is not well, "" when it is."""
    # It is this machine that is asked, by its address: the certificate is of a name.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    direct = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with direct.open(url, timeout=TIMEOUT_S):
            return ""
    except urllib.error.HTTPError as answer:
        return f"{url}: {answer.code} {answer.read(500).decode(errors='replace')}"
    except OSError as why:
        return f"{url}: {why}"


def main() -> int:
    """Ask, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", action="store_true", help="the database has to be connected, too")
    parser.add_argument("--wait", type=float, default=0.0, metavar="S", help="how long to ask again")
    args = parser.parse_args()
    try:
        url = load().listen_url + ("/health" if args.database else "/health/ready")
    except SettingsError as why:
        sys.stderr.write(f"{why}\n")
        return 1
    until = time.monotonic() + args.wait
    while (found := trouble(url)) and time.monotonic() < until:
        time.sleep(PAUSE_S)
    if found:
        sys.stderr.write(f"{found}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
