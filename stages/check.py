"""Check params.yaml before any other stage begins, and record the code that decides what each of them computes.

Every other stage depends on this one: DVC puts names of params.yaml into commands and paths, and removes a stage's
outputs before the stage itself could refuse. What is written depends on the code alone. Texts outside the grid are
removed.
"""

from prunelib.runtime.console import one_line

with one_line():  # an interrupt of the imports, which take seconds
    from prunelib import stage_code
    from prunelib.params import Params
    from prunelib.runtime import store
    from prunelib.workflow import own_folders, paths, stage


def check(params: Params) -> None:
    """Check all names and values, which reading them does, and that no source lies where stages write."""
    own_folders.require_sources_elsewhere(params)
    own_folders.remove_other_texts(params)
    for name in stage_code.STAGES:
        store.write_json(paths.code_file(name), stage_code.files_that_decide(name))


if __name__ == "__main__":
    stage.run(check)
