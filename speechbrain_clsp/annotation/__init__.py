"""Fine captions of a corpus, written and checked by models on servers, and judges of captions.

Experimental: it was tested with servers that misbehave and with models that measure the audio, not
yet with language models.
"""

from speechbrain_clsp.annotation.client import ChatClient, ServerSettings
from speechbrain_clsp.annotation.config import AnnotationSettings, read_settings
from speechbrain_clsp.annotation.judge import judge_jobs
from speechbrain_clsp.annotation.pipeline import Annotation
from speechbrain_clsp.annotation.records import Records, read_records
from speechbrain_clsp.annotation.retries import RequestRejectedError, ServerUnavailableError
from speechbrain_clsp.annotation.run import run_jobs
from speechbrain_clsp.annotation.stages.release import write_release
from speechbrain_clsp.annotation.verdicts import judge_agreement, judge_metrics

__all__ = [
    "Annotation",
    "AnnotationSettings",
    "ChatClient",
    "Records",
    "RequestRejectedError",
    "ServerSettings",
    "ServerUnavailableError",
    "judge_agreement",
    "judge_jobs",
    "judge_metrics",
    "read_records",
    "read_settings",
    "run_jobs",
    "write_release",
]
