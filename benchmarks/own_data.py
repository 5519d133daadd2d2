#!/usr/bin/env python3
"""Zero-shot recognition of five languages, spoken by new voices, after `clsp train` on few clips.

libespeak-ng speaks English, French, Italian, Russian and Spanish in the band of a telephone; a
table names wav, caption, gender, language (labels.language), speaker and split. No voice and no
sentence of the test is in training. Then `clsp train` runs with its defaults, and the table that it
leaves is printed with the time that it took.

> python benchmarks/own_data.py --folder /tmp/languages
"""

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, sosfilt

from speechbrain_clsp.mini_fcaps.synthesis import Synthesizer

TELEPHONE_RATE = 8000
TELEPHONE = butter(4, (300, 3400), "bandpass", fs=16000, output="sos")
# espeak's variants, with the gender that they sound like; no variant is in two of the splits.
VOICES = {
    "train": {
        "male": ("m1", "m3", "m7", "Denis", "Gene", "adam", "antonio", "klatt4"),
        "female": ("f1", "f2", "f5", "Andrea", "belinda", "steph", "Annie", "anika"),
    },
    "test": {"male": ("m6", "m8", "victor"), "female": ("f4", "linda", "Alicia")},
}
# Beginnings, middles and ends of sentences.
PHRASES = {
    "English": (
        "en-us",
        ("Please hold on,", "Good morning,", "We are sorry,", "Thank you very much,"),
        ("your call is important", "the office is closed", "all lines are busy", "we hear you"),
        ("until next Monday.", "at this hour.", "so try again later.", "and will help you soon."),
    ),
    "French": (
        "fr",
        ("Veuillez patienter,", "Bonjour,", "Nous sommes désolés,", "Merci beaucoup,"),
        ("votre appel est important", "le bureau est fermé", "les lignes sont occupées", "bien"),
        ("jusqu'à lundi prochain.", "à cette heure.", "rappelez plus tard.", "à bientôt."),
    ),
    "Italian": (
        "it",
        ("Attendere prego,", "Buongiorno,", "Siamo spiacenti,", "Grazie mille,"),
        ("la chiamata è importante", "l'ufficio è chiuso", "le linee sono occupate", "va bene"),
        ("fino a lunedì prossimo.", "a quest'ora.", "riprovi più tardi.", "e a presto."),
    ),
    "Russian": (
        "ru",
        ("Пожалуйста, подождите,", "Доброе утро,", "Нам очень жаль,", "Большое спасибо,"),
        ("ваш звонок очень важен", "офис сейчас закрыт", "все линии заняты", "мы вас слышим"),
        ("до понедельника.", "в это время.", "попробуйте позже.", "и скоро поможем вам."),
    ),
    "Spanish": (
        "es",
        ("Espere, por favor,", "Buenos días,", "Lo sentimos mucho,", "Muchas gracias,"),
        (
            "su llamada es importante",
            "la oficina está cerrada",
            "las líneas están ocupadas",
            "bien",
        ),
        ("hasta el próximo lunes.", "a esta hora.", "inténtelo más tarde.", "y hasta pronto."),
    ),
}
CAPTIONS = (
    "A {gender} voice speaks {language} on the telephone.",
    "{language}, spoken by a {person}.",
    "A {person} says something in {language}.",
    "A recorded {language} announcement with a {gender} speaker.",
)
PERSONS = {"male": "man", "female": "woman"}


def telephone(wav: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return 16 kHz speech as 8 kHz of a telephone, with a little noise."""
    narrow = sosfilt(TELEPHONE, wav)[::2]
    narrow = narrow / max(np.abs(narrow).max(), 1e-6) * generator.uniform(0.3, 0.9)
    return narrow + generator.normal(0, 0.003, len(narrow))


def make_clips(folder: Path, clips_of_voice: dict[str, int], seed: int) -> Path:
    """Write the wavs and their table; returns its path."""
    draw, noise = random.Random(seed), np.random.default_rng(seed)
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    rows = []
    for language, (voice, *phrases) in PHRASES.items():
        sentences = [
            " ".join((a, b, c)) for a in phrases[0] for b in phrases[1] for c in phrases[2]
        ]
        draw.shuffle(sentences)
        halves = {"train": sentences[16:], "test": sentences[:16]}
        for split, by_gender in VOICES.items():
            for gender, variants in by_gender.items():
                for variant in variants:
                    pitch, rate = draw.randint(35, 65), draw.randint(140, 190)
                    for number in range(clips_of_voice[split]):
                        name = f"{language}-{variant}-{number}".lower()
                        with Synthesizer() as synthesizer:
                            wav = synthesizer.speak(
                                draw.choice(halves[split]),
                                f"{voice}+{variant}",
                                rate=rate + draw.randint(-10, 10),
                                pitch=pitch + draw.randint(-4, 4),
                            )
                        path = folder / "wavs" / f"{name}.wav"
                        soundfile.write(path, telephone(wav, noise), TELEPHONE_RATE)
                        caption = draw.choice(CAPTIONS).format(
                            gender=gender, language=language, person=PERSONS[gender]
                        )
                        rows.append(
                            (f"wavs/{path.name}", caption, gender, language, variant, split)
                        )
    table = folder / "clips.csv"
    with open(table, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("wav", "caption", "gender", "labels.language", "speaker", "split"))
        writer.writerows(rows)
    return table


def main() -> None:
    """Make the clips, train, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for clips and model")
    parser.add_argument("--train-clips", type=int, default=4, help="of each voice and language")
    parser.add_argument("--test-clips", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="+", default=[], help="KEY=VALUE, for clsp train")
    options = parser.parse_args()
    counts = {"train": options.train_clips, "test": options.test_clips}
    table = options.folder / "clips.csv"
    if not table.is_file():
        make_clips(options.folder, counts, options.seed)
    output = options.folder / f"model-{options.seed}"
    command = [sys.executable, "-m", "speechbrain_clsp.cli", "train", str(table)]
    command += ["--output", str(output), "--seed", str(options.seed)]
    command += ["--set", *options.set] if options.set else []
    start = time.monotonic()
    subprocess.run(command, check=True)
    seconds = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    (language,) = metrics["tables"]["language"].values()
    cpu = used.ru_utime + used.ru_stime  # of all cores, also where others use them
    print(f"{seconds:.0f} s, {cpu:.0f} s of CPU time; new voices, language: {language}")


if __name__ == "__main__":
    main()
