"""Fetch an input of the grid: a model, a text, or, without a name, the items of the zero-shot tasks."""

from prunelib.runtime.console import one_line

with one_line():  # an interrupt of the imports, which take seconds
    from prunelib.errors import ParamsError
    from prunelib.params import Params
    from prunelib.runtime import atomic
    from prunelib.sources import fetch_model, fetch_tasks, fetch_text
    from prunelib.workflow import paths, stage


def download(params: Params, model: str | None = None, text: str | None = None) -> None:
    """Fetch one model, one text, or the tasks, into a folder that is created only when complete."""
    if model and text:
        raise ParamsError(f"--model {model} --text {text}: expected one of them at a time")
    if model:
        with atomic.replacing_folder(paths.model_folder(model)) as folder:
            fetch_model(params.models[model], folder)
    elif text:
        with atomic.replacing_folder(paths.text_folder(text)) as folder:
            fetch_text(params.texts[text], folder)
    else:
        with atomic.replacing_folder(paths.TASKS) as folder:
            fetch_tasks(params.tasks, folder)


if __name__ == "__main__":
    stage.run(download)
