"""The command ``prunelib``, run in this process."""

from typer.testing import CliRunner, Result

from prunelib.cli.app import app


def prunelib(*words: object) -> Result:
    """What ``prunelib WORDS`` gave: exit status and output; any exception but an exit is raised."""
    result = CliRunner().invoke(app, [str(word) for word in words], prog_name="prunelib")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
