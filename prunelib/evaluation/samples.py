"""Settings of the samples: prompts that every model continues greedily, so that people see what a perplexity means."""

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from prunelib.settings import Count, Settings, distinct

Prompt = Annotated[str, StringConstraints(pattern=r"\S", max_length=10_000)]


class SamplesSettings(Settings):
    """Prompts that the dense and every pruned model continue, each by itself.

    Attributes
    ----------
    prompts
        Texts to continue; may be empty.
    tokens
        Maximum number of tokens that follow a prompt.
    """

    prompts: Annotated[tuple[Prompt, ...], AfterValidator(distinct)] = ()
    tokens: Count = 40
