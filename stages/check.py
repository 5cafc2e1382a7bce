"""Check params.yaml before any other stage begins.

Every other stage depends on this one: DVC puts names of params.yaml into commands and paths, and removes a stage's
outputs before the stage itself could refuse. What is written is always the same, so that no other stage reruns for it.
"""

from prunelib.runtime.console import one_line

with one_line():  # an interrupt of the imports, which take seconds
    from prunelib import workflow
    from prunelib.params import Params
    from prunelib.runtime import store


def check(params: Params) -> None:
    """Check all names and values, which reading them does, and that no source lies where stages write."""
    workflow.require_sources_elsewhere(params)
    store.write_text(workflow.CHECKED, "params.yaml is valid\n")


if __name__ == "__main__":
    workflow.run(check)
