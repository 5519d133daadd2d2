"""Sound in the containers that FFmpeg writes, made by PyAV."""

from pathlib import Path

import av
import numpy as np


def write_ffmpeg(
    path: Path, samples: np.ndarray, rate: int, codec: str, video: str | None = None, **options
) -> Path:
    """Write samples [channels, T] by a codec, beside a track of video if one is named.

    The track of video is one second longer than the sound.
    """
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    with av.open(path, "w", **options) as container:
        if video:
            images = container.add_stream(video, rate=10)
            images.width = images.height = 32
            images.pix_fmt = "yuv420p"
        sound = container.add_stream(codec, rate=rate, layout=layout)
        if video:
            for number in range(round(10 * (samples.shape[1] / rate + 1))):
                image = np.full((32, 32, 3), number % 256, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = number
                container.mux(images.encode(frame))
            container.mux(images.encode())
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples, np.float32), format="fltp", layout=layout
        )
        frame.sample_rate, frame.pts = rate, 0
        form = sound.codec_context.format or "fltp"
        resampler = av.AudioResampler(format=form, layout=layout, rate=rate)
        for converted in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(sound.encode(converted))
        container.mux(sound.encode())
    return path
