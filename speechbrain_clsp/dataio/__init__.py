"""What training and evaluation read: manifests, audio, and batches of clips with captions.

Corpora become manifests in ``prepare``; here they are only read.
"""

from speechbrain_clsp.dataio.audio import SAMPLE_RATE, AudioError, read_audio
from speechbrain_clsp.dataio.dataset import CaptionedSpeech, CaptionedSpeechDataset, Collate
from speechbrain_clsp.dataio.labels import AttributeLabels
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.dataio.rehearsal import Rehearsal
from speechbrain_clsp.dataio.resample import resample
from speechbrain_clsp.dataio.sampler import BucketBatchSampler
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.dataio.tokenizers import FastTokenizerCaptions, SentencePieceCaptions

__all__ = [
    "SAMPLE_RATE",
    "AttributeLabels",
    "AudioError",
    "BucketBatchSampler",
    "CaptionedSpeech",
    "CaptionedSpeechDataset",
    "ClipReader",
    "Collate",
    "FastTokenizerCaptions",
    "Manifest",
    "Rehearsal",
    "SentencePieceCaptions",
    "read_audio",
    "resample",
    "write_manifest",
]
