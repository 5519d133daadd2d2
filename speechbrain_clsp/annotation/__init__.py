"""Fine captions of a corpus, written and checked by models on servers, and judges of captions.

Experimental: it was tested with servers that misbehave and with models that measure the audio, not
yet with language models.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "Annotation": ".pipeline",
    "AnnotationSettings": ".config",
    "ChatClient": ".client",
    "JudgeMetrics": ".verdicts",
    "JudgeSettings": ".judge",
    "Records": ".records",
    "RequestRejectedError": ".retries",
    "RunReport": ".run",
    "ServerSettings": ".client",
    "ServerUnavailableError": ".retries",
    "write_release": ".stages.release",
    "judge_agreement": ".verdicts",
    "judge_jobs": ".judge",
    "judge_metrics": ".verdicts",
    "read_judge_settings": ".config",
    "read_records": ".records",
    "read_settings": ".config",
    "run_jobs": ".run",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first used: torch takes seconds."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
