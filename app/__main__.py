"""`python -m app [--host --port --data --agent]` serves, from any directory once installed; `check` reads the log."""

from __future__ import annotations

import argparse
import logging
import os
import sys

import uvloop

from app.actor.leaving import cut_off
from app.agent.agents import ConfigError
from app.check import check
from app.core.errors import HoldfastError
from app.core.redaction import redactor
from app.main import Redacting, agents_of, model_of, serve
from app.server import bind
from app.settings import SettingError, check_exposure, read

logger = logging.getLogger(__name__)

FLAGS = {"host": "HOLDFAST_HOST", "port": "PORT", "data": "HOLDFAST_DATA", "agent": "HOLDFAST_AGENT"}


def main() -> None:
    """Reads the settings, refuses wrong ones, serves until a signal; or checks what was served."""
    if sys.argv[1:2] == ["check"]:
        sys.exit(check(sys.argv[2:], os.environ))
    parser = argparse.ArgumentParser(
        prog="holdfast",
        description="Chat with agents that keep working.",
        epilog="`holdfast check` rebuilds from the log every request that a model was sent.",
    )
    for flag, setting in FLAGS.items():
        parser.add_argument(f"--{flag}", help=f"instead of {setting}")
    given = vars(parser.parse_args())
    environ = dict(os.environ) | {FLAGS[flag]: value for flag, value in given.items() if value is not None}
    try:
        settings = read(environ)
        redact = redactor(settings.secrets)
        sys.stdout, sys.stderr = Redacting(sys.stdout, redact), Redacting(sys.stderr, redact)
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        check_exposure(settings)
        agents = agents_of(settings)
        listening = bind(settings)
    except (SettingError, ConfigError) as error:
        sys.exit(f"holdfast: {error}")
    except OSError as error:
        sys.exit(f"holdfast: cannot listen on this address: {error.strerror}")

    async def life() -> None:
        await serve(settings, agents, model_of(settings), listening)
        if deaf := await cut_off():
            logger.warning("%d tasks of tools did not let go: the process ends without them", deaf)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)  # all that is ours is closed

    try:
        uvloop.run(life())
    except HoldfastError as error:
        sys.exit(f"holdfast: {error}")


if __name__ == "__main__":
    main()
