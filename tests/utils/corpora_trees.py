"""Miniature trees of the corpora, in their true layouts, and records that refer to them."""

import gzip
import json
from pathlib import Path

import numpy as np

from tests.unittests.dataio.test_shards import encoded, make_tar
from tests.utils.small import tone, write

EMILIA = [f"EN_B00000_S0000{i // 3}_W00000{i}" for i in range(6)]
READ = "ex03_enunciated_00012"
CONVERSATION = "ex04-ex02_desire_002"
SEGMENT = f"{CONVERSATION}_channel2_segment_1.25_2.75"
PLAIN = {
    "ears/p001/emo_awe_freeform.wav": 48000,
    "ears/p002/emo_awe_freeform.wav": 48000,
    f"expresso/audio_48khz/read/ex03/enunciated/{READ}.wav": 48000,
    "voxceleb1/dev/wav/id10001/1zcIwhmdeo4/00001.wav": 16000,
    "voxceleb2/dev/aac/id00012/-1Uxsk56VDQ/00001.wav": 16000,
    "voxceleb2/dev/aac/id00012/2DLq_Kkc1r8/00001.wav": 16000,
}


def make_corpora(root: Path) -> Path:
    """Write a second of sound for every name, and a stereo conversation of four seconds."""
    for i, (name, rate) in enumerate(PLAIN.items()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root / name, tone(1.0, rate, 100 + 20 * i), rate)
    folder = root / "expresso/audio_48khz/conversational/ex04-ex02/desire"
    folder.mkdir(parents=True)
    stereo = np.stack([tone(4.0, 48000, 110), tone(4.0, 48000, 210)], axis=1)
    write(folder / f"{CONVERSATION}.wav", stereo, 48000)
    (root / "voxceleb2/dev/aac/id00012/2DLq_Kkc1r8/00002.m4a").write_bytes(b"\0\0\0 ftypM4A ")
    (root / "Emilia/EN").mkdir(parents=True)
    for number in (0, 1):
        members = {}
        for name in EMILIA[3 * number : 3 * number + 3]:
            about = {"id": name, "text": "hello", "language": "en", "dnsmos": 3.3}
            members[f"{name}.json"] = json.dumps(about).encode()
            members[f"{name}.mp3"] = encoded(tone(1.0, 24000))
        make_tar(root / f"Emilia/EN/EN-B00000{number}.tar", members)
    return root


def cut(name: str, source: str, duration: float = 1.0, **changes) -> dict:
    """Return a cut as FCaps publishes it; changes go to custom, or to the key they name."""
    custom = {
        "short_captions": [f"Global of {name}."],
        "long_captions": [f"Fine of {name}.", "Another, naïve “one”."],
        "accent": "scottish",
        "pitch": "low-pitched",
        "speaking_rate": "slow speed",
        "intrinsic_tags": ["deep"],
        "situational_tags": [],
    }
    record = {
        "id": name,
        "start": 0.0,
        "duration": duration,
        "channel": 0,
        "supervisions": [
            {
                "id": name,
                "recording_id": name,
                "start": 0.0,
                "duration": duration,
                "channel": 0,
                "text": "the transcript",
                "speaker": "s1",
                "gender": "female",
                "custom": custom,
            }
        ],
        "recording": {
            "id": name,
            "sources": [{"type": "file", "channels": [0], "source": source}],
            "sampling_rate": 16000,
            "num_samples": round(duration * 16000),
            "duration": duration,
            "channel_ids": [0],
            "transforms": [{"name": "Resample", "kwargs": {}}],
        },
        "type": "MonoCut",
    }
    for key, value in changes.items():
        place = custom if key in custom else record["recording"]
        if key in record:
            place = record
        if key in ("text", "gender", "speaker"):
            place = record["supervisions"][0]
        place[key] = value
    return record


def write_cuts(path: Path, records: list) -> Path:
    """Write records, or lines, as gzipped JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path
