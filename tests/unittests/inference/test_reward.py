"""Style rewards: values against cosines by hand, gradients against finite differences."""

import random
import subprocess
import sys

import numpy
import pandas
import pytest
import torch
import torchaudio

from speechbrain_clsp import CLSP
from speechbrain_clsp.captions.perturbation import AttributeSwap, between_values
from speechbrain_clsp.inference import reward as reward_module
from speechbrain_clsp.inference.guards import (
    AgreementGuard,
    LengthGuard,
    LevelGuard,
    WordErrorGuard,
)
from speechbrain_clsp.inference.reward import StyleReward, within_groups
from tests.utils.small import CAPTIONS, model_folder, tone

SWAP = AttributeSwap(
    between_values(
        {
            "speaker": [["male speaker"], ["female speaker"], ["child"]],
            "rate": [["slowly"], ["quickly"]],
        }
    )
)


@pytest.fixture(scope="module")
def clsp(tmp_path_factory):
    return CLSP.from_hparams(model_folder(tmp_path_factory.mktemp("model")))


@pytest.fixture
def wavs():
    return torch.stack([torch.from_numpy(tone(0.6, frequency=f)) for f in (100, 150, 220)])


def test_scalings_are_what_they_say(clsp, wavs):
    """If this fails, a policy is trained on something else than the documented reward."""
    lens = torch.tensor([1.0, 0.8, 1.0])
    cosines = clsp.score_batch(wavs, CAPTIONS, lens).diagonal()
    assert torch.allclose(StyleReward(clsp)(wavs, CAPTIONS, lens), cosines, atol=1e-6)
    reward = StyleReward(clsp, scaling="margin", swap=SWAP, n_contrasts=2, weight=3.0)
    found = reward.explain(wavs, CAPTIONS, lens)
    for n, caption in enumerate(CAPTIONS):
        contrasts = reward.contrasts(caption)
        assert caption not in contrasts and 1 <= len(contrasts) <= 2
        most = clsp.score_batch(wavs[[n]], contrasts, lens[[n]]).max()
        assert found.parts["contrast"][n] == pytest.approx(float(most), abs=1e-6)
        assert found.total[n] == pytest.approx(3 * float(cosines[n] - most), abs=1e-5)
    grouped = StyleReward(clsp, scaling="group")(wavs, CAPTIONS, lens, groups=["a", "a", "b"])
    expected = [*within_groups(cosines[:2], "aa").tolist(), 0.0]
    assert grouped.tolist() == pytest.approx(expected, abs=1e-4)
    base = cosines - torch.tensor([0.1, 0.0, -0.2])
    better = StyleReward(clsp, scaling="improvement", improvement_scale=0.1)
    rewards = better(wavs, CAPTIONS, lens, baseline=base)
    assert torch.allclose(rewards, torch.tensor([1.0, 0.0, -2.0]).tanh(), atol=1e-4)


def test_groups_are_standardized():
    """If this fails, GRPO's advantages are not those of the group."""
    values = torch.tensor([1.0, 4.0, 2.0, 9.0, 3.0], dtype=torch.double)
    groups = ["x", "y", "x", "y", "x"]
    found = within_groups(values, groups)
    for name in "xy":
        own = [n for n, group in enumerate(groups) if group == name]
        expected = (values[own] - values[own].mean()) / values[own].std(correction=0)
        assert torch.allclose(found[own], expected)
    assert within_groups(torch.tensor([0.5, 0.5]), "aa").tolist() == [0.0, 0.0]


def test_gradients_equal_finite_differences(clsp, wavs, tmp_path):
    """If this fails, fine-tuning through the reward climbs in a wrong direction.

    The whole chain in float64: resampler, filter banks, tower, head, margin.
    """
    exact = CLSP.from_hparams(model_folder(tmp_path))
    exact.mods.double()
    reward = StyleReward(exact, scaling="margin", swap=SWAP, n_contrasts=2, sample_rate=22050)
    generator = torch.Generator().manual_seed(0)
    wavs = torchaudio.functional.resample(wavs[:2], 16000, 22050).double()
    # Noise in all bands: without power the logarithm stands at its floor, which has a kink.
    wavs += 0.01 * torch.randn(wavs.shape, generator=generator, dtype=torch.double)
    wavs.requires_grad_()
    lens = torch.tensor([1.0, 0.7])
    value = reward(wavs, CAPTIONS[:2], lens)
    assert value.dtype == torch.float64
    (gradient,) = torch.autograd.grad(value.sum(), wavs)
    assert gradient[1, int(0.75 * wavs.shape[1]) :].abs().max() == 0  # padding has no say
    for _ in range(5):
        direction = torch.randn(wavs.shape, generator=generator, dtype=torch.double)
        direction *= 1e-6
        with torch.no_grad():
            ends = [reward(wavs + s * direction, CAPTIONS[:2], lens).sum() for s in (1, -1)]
        slope = (gradient * direction).sum()
        assert slope.abs() > 0
        assert float((ends[0] - ends[1]) / 2) == pytest.approx(float(slope), rel=1e-6)


def test_nothing_is_trained_and_no_graph_is_kept_unasked(clsp, wavs):
    """If this fails, the reward model drifts to what it rewards, or memory fills with graphs."""
    reward = StyleReward(clsp)
    assert not reward(wavs, CAPTIONS).requires_grad
    asked = wavs.clone().requires_grad_()
    reward(asked, CAPTIONS).sum().backward()
    assert asked.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in clsp.mods.parameters())
    with torch.no_grad():
        assert not reward(asked, CAPTIONS).requires_grad


def test_captions_are_embedded_once(clsp, wavs, monkeypatch):
    """If this fails, every step of a training pays for the same captions again."""
    reward, passes = StyleReward(clsp), []
    forward = clsp.text_tower.forward
    monkeypatch.setattr(
        clsp.text_tower, "forward", lambda *args: passes.append(len(args[0])) or forward(*args)
    )
    clsp.text_cache.clear()
    first = reward(wavs, CAPTIONS)
    assert torch.equal(reward(wavs, CAPTIONS), first) and passes == [3]
    reward(wavs, CAPTIONS[:1] * 2 + ["A new one."])
    assert passes == [3, 1]


def test_caches_of_captions_are_bounded(clsp, monkeypatch):
    monkeypatch.setattr(reward_module, "CACHED_CONTRASTS", 3)
    reward = StyleReward(clsp, scaling="margin", swap=SWAP, n_contrasts=2)
    captions = [f"A male speaker talks slowly, take {n}." for n in range(6)]
    first = [reward.contrasts(caption) for caption in captions]
    assert len(reward._contrasts) <= 3
    assert [reward.contrasts(caption) for caption in captions] == first


def test_guards_veto_and_give_no_gradient(clsp, wavs):
    """If this fails, silence, shouting or nonsense earns a reward."""
    wavs = torch.stack([wavs[0], torch.zeros_like(wavs[0]), 4 * wavs[2], wavs[0]])
    lens, captions = torch.tensor([1.0, 1.0, 1.0, 0.2]), [CAPTIONS[0]] * 4
    words = WordErrorGuard(lambda wavs, lens: ["come in", "come in", "go", "come in"])
    guards = [LengthGuard(0.3, 5.0), LevelGuard(), words]
    reward = StyleReward(clsp, guards=guards, veto=-7.0)
    wavs.requires_grad_()
    found = reward.explain(wavs, captions, lens, texts=["Come in."] * 4)
    assert {name: passes.tolist() for name, passes in found.passed.items()} == {
        "length": [True, True, True, False],
        "level": [True, False, False, True],
        "words": [True, True, False, True],
    }
    assert found.total.tolist()[1:] == [-7.0] * 3 and found.total[0] > -1
    found.total.sum().backward()
    assert wavs.grad[0].abs().sum() > 0 and wavs.grad[1:].abs().sum() == 0
    with pytest.raises(ValueError, match="texts"):
        reward(wavs, captions, lens)
    second = StyleReward(clsp)
    bar = float(second(wavs[:1].detach(), captions[:1]))
    for least, passes in ((bar - 0.01, True), (bar + 0.01, False)):
        agreed = StyleReward(clsp, guards=[AgreementGuard(second, least)])
        assert agreed.explain(wavs[:1], captions[:1]).passed["agreement"].tolist() == [passes]


def test_other_rates_score_the_same(clsp):
    """If this fails, TTS at 22.05 or 24 kHz is rewarded for its sample rate."""
    wav = torch.from_numpy(tone(1.0))[None]
    expected = StyleReward(clsp)(wav, CAPTIONS[:1])
    for rate in (22050, 24000, 48000):
        other = torchaudio.functional.resample(wav, 16000, rate)
        found = StyleReward(clsp, sample_rate=rate)(other, CAPTIONS[:1])
        assert torch.allclose(found, expected, atol=0.02), rate


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"captions": CAPTIONS[:2]}, "2 captions for wavs of shape"),
        ({"wavs": torch.zeros(9600)}, "captions for wavs of shape"),
        ({"wavs": torch.zeros(3, 9600, dtype=torch.int16)}, "divide 16-bit values by 32768"),
        ({"wav_lens": [9600, 9600, 4800]}, "wav_lens must be relative"),
        ({"wav_lens": [1.0, 1.0, torch.inf]}, "wav_lens must be relative"),
        ({"wav_lens": [1.0]}, r"wav_lens must be \[3\], not \[1\]"),
        ({"texts": ["Come in."]}, "1 texts for 3 clips"),
        ({"groups": ["a"]}, "1 groups for 3 clips"),
        ({"captions": ["A dog.", *CAPTIONS[1:]]}, "No attribute of 'A dog.' can be swapped"),
    ],
)
def test_wrong_inputs_are_told(clsp, wavs, change, reason):
    """If this fails, captions are paired with other clips in silence."""
    reward = StyleReward(clsp, scaling="margin", swap=SWAP)
    with pytest.raises(ValueError, match=reason):
        reward(**{"wavs": wavs, "captions": CAPTIONS, **change})
    with pytest.raises(ValueError, match="scaling must be one of"):
        StyleReward(clsp, scaling="z")
    for options in ({"sample_rate": 10**7}, {"n_contrasts": 0}, {"improvement_scale": 0.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            StyleReward(clsp, **options)
    with pytest.raises(ValueError, match="baseline must be numbers"):
        StyleReward(clsp, scaling="improvement")(wavs, CAPTIONS, baseline=[0.1, torch.nan, 0.2])
    with pytest.raises(ValueError, match="baseline"):
        StyleReward(clsp, scaling="improvement")(wavs, CAPTIONS)
    with pytest.raises(TypeError, match="wav_lens must hold 3 real numbers, not torch.complex64"):
        reward(wavs, CAPTIONS, torch.ones(3, dtype=torch.complex64))
    assert SWAP("A dog.", random.Random(0)) == "A dog."


@pytest.mark.parametrize("scaling", ["cosine", "margin", "group", "improvement"])
def test_one_bad_clip_gets_the_veto_and_leaves_the_others_alone(clsp, wavs, scaling):
    """If this fails, one failed synthesis ends a training, or changes the rewards of others."""
    reward = StyleReward(clsp, scaling, veto=-7.0, swap=SWAP, guards=[LengthGuard(), LevelGuard()])
    lens = torch.tensor([1.0, 0.8, 1.0])
    options = {"baseline": torch.zeros(3)} if scaling == "improvement" else {}
    if scaling == "group":
        options = {"groups": ["a", "a", "a"]}
    expected = reward(wavs, CAPTIONS, lens, **options)
    bad = wavs[0].clone()
    bad[77] = torch.nan
    huge = torch.full_like(bad, 1e30)
    more, captions = torch.stack([*wavs, bad, bad, bad, huge]), CAPTIONS + CAPTIONS[:1] * 4
    lens = torch.tensor([*lens, 1.0, 0.0, 0.05, 1.0])
    more[4:6] = wavs[0]
    options = {name: [*values, *values, 0][:7] for name, values in options.items()}
    if scaling == "group":
        options["groups"] = ["a"] * 7
    more.requires_grad_()
    found = reward.explain(more, captions, lens, **options)
    torch.testing.assert_close(found.total[:3], expected, atol=2e-4, rtol=0)
    assert found.total[3:].tolist() == [-7.0] * 4
    assert found.reasons[:3] == ("", "", "")
    said = ("NaN", "relative length 0", "lasts 0.030 s", "far beyond")
    assert all(each in reason for each, reason in zip(said, found.reasons[3:]))
    assert found.parts["cosine"].isnan().tolist() == [False] * 3 + [True] * 4
    assert all(passes.tolist() == [True] * 3 + [False] * 4 for passes in found.passed.values())
    (gradient,) = torch.autograd.grad(found.total.sum(), more)
    assert gradient.isfinite().all() and gradient[3:].abs().sum() == 0
    if scaling != "group":  # whose sum is constant
        assert gradient[:3].abs().sum() > 0


@pytest.mark.parametrize(
    ("wavs", "lens"),
    [
        (torch.zeros(2, 0), None),
        (torch.zeros(2, 300), None),
        (torch.full((2, 9600), torch.nan), None),
        (torch.zeros(2, 9600), torch.full((2,), torch.nan)),
    ],
)
@pytest.mark.parametrize("rate", [16000, 22050])
def test_a_batch_of_bad_clips_is_vetoed_and_a_step_is_possible(clsp, wavs, lens, rate):
    reward = StyleReward(clsp, guards=[LengthGuard(), LevelGuard()], sample_rate=rate)
    asked = wavs.clone().requires_grad_()
    found = reward.explain(asked, CAPTIONS[:2], lens)
    assert found.total.tolist() == [-1.0, -1.0] and all(found.reasons)
    found.total.sum().backward()
    assert not asked.grad.any()


def test_every_guard_counts(clsp, wavs):
    """If this fails, of two guards of one kind only the last one stops anything."""

    def first(wavs, wav_lens, captions, texts):
        return [False, True, True]

    other = StyleReward(clsp)
    guards = [
        LengthGuard(0.55, 9.0),
        LengthGuard(0.0, 0.5),
        first,
        lambda *given: torch.tensor([1, 1, 0]).numpy(),
        lambda *given: torch.ones(3, dtype=torch.bool),
        AgreementGuard(other, -1.0),
        AgreementGuard(other, 1.1),
    ]
    found = StyleReward(clsp, guards=guards).explain(wavs, CAPTIONS, [1.0, 1.0, 0.5])
    assert {name: passes.tolist() for name, passes in found.passed.items()} == {
        "length": [True, True, False],
        "length 2": [False, False, True],
        "first": [False, True, True],
        "<lambda>": [True, True, False],
        "<lambda> 2": [True, True, True],
        "agreement": [True, True, True],
        "agreement 2": [False, False, False],
    }
    assert found.reasons[1] == "fails the guard length 2; fails the guard agreement 2"
    assert found.total.tolist() == [-1.0] * 3


@pytest.mark.parametrize(
    ("passes", "error"),
    [
        (torch.tensor([True]), ValueError),
        (torch.tensor(True), ValueError),
        ([True, False], ValueError),
        (torch.ones(3, 1), ValueError),
        ([0.2, 0.9, 1.0], ValueError),
        (None, TypeError),
        ("yes", TypeError),
    ],
)
def test_a_guard_of_another_length_is_named(clsp, wavs, passes, error):
    """If this fails, what one clip got is taken for all."""
    reward = StyleReward(clsp, guards=[LengthGuard(), lambda *given: passes])
    with pytest.raises(error, match="guard '<lambda>' must return 3 bool"):
        reward(wavs, CAPTIONS)


def test_guards_are_a_list(clsp):
    with pytest.raises(TypeError, match="guards must be a list"):
        StyleReward(clsp, guards=LengthGuard())
    with pytest.raises(TypeError, match="'length' is not"):
        StyleReward(clsp, guards=["length"])
    with pytest.raises(TypeError, match="LengthGuard is a class: call it"):
        StyleReward(clsp, guards=[LengthGuard])


@pytest.mark.parametrize("name", ["veto", "weight", "sample_rate", "improvement_scale"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, "1", None])
def test_settings_are_finite_numbers(clsp, name, value):
    """If this fails, a policy is trained on rewards that are NaN."""
    with pytest.raises(TypeError, match=f"{name} must be a finite number, not"):
        StyleReward(clsp, **{name: value})


def test_a_model_is_not_its_folder():
    with pytest.raises(TypeError, match="clsp must be a model.* not 'results/mini/model'"):
        StyleReward("results/mini/model")


def test_a_guard_that_works_in_place_changes_nothing(clsp, wavs):
    """If this fails, what one guard writes into is what the next one and the user get."""

    def erase(given, wav_lens, captions, texts):
        given.zero_()
        wav_lens.zero_()
        captions.clear()
        texts.clear()
        return [True] * 3

    before, lens, captions = wavs.clone(), torch.ones(3), [*CAPTIONS]
    reward = StyleReward(clsp, guards=[erase, LevelGuard(loudest=0.0), LengthGuard()])
    found = reward.explain(wavs.requires_grad_(), captions, lens, texts=["a", "b", "c"])
    assert found.reasons == ("", "", "")
    assert torch.equal(wavs, before) and torch.equal(lens, torch.ones(3)) and captions == CAPTIONS


def test_labels_of_groups_are_told_apart_by_value(clsp, wavs):
    """If this fails, every clip is a group of its own, and no policy learns anything."""
    reward = StyleReward(clsp, scaling="group")
    expected = reward(wavs, CAPTIONS, groups=[0, 1, 0])
    assert expected[0] != 0
    torch.testing.assert_close(reward(wavs, CAPTIONS, groups=[*torch.tensor([0, 1, 0])]), expected)
    with pytest.raises(ValueError, match=r"groups\[1\] is NaN"):
        reward(wavs, CAPTIONS, groups=["a", torch.nan, "a"])
    with pytest.raises(TypeError, match=r"groups\[2\] must be a str or a number, not {'a': 1}"):
        reward(wavs, CAPTIONS, groups=["a", "b", {"a": 1}])


def test_lists_and_arrays_are_taken_as_tensors_are(clsp, wavs):
    """If this fails, a batch that a data frame or a list describes means something else."""
    lens = torch.tensor([1.0, 0.8, 1.0])
    expected = StyleReward(clsp)(wavs, CAPTIONS, lens)
    table = pandas.DataFrame({"caption": CAPTIONS, "length": lens, "group": ["a", "b", "a"]})
    for captions, each in ((table.caption, table.length), (iter(CAPTIONS), lens.tolist())):
        torch.testing.assert_close(StyleReward(clsp)(wavs.numpy(), captions, each), expected)
    grouped = StyleReward(clsp, scaling="group")
    groups = ["a", "b", "a"], table.group, torch.tensor([0, 1, 0]), numpy.array([0, 1, 0])
    first, *others = (grouped(wavs, CAPTIONS, lens, groups=each).tolist() for each in groups)
    assert first[0] == pytest.approx(-first[2]) and abs(first[0]) > 0.5
    assert others == [first] * 3
    better = StyleReward(clsp, scaling="improvement")
    base = [0.1, 0.2, 0.3]
    for baseline in (base, numpy.array(base), pandas.Series(base)):
        found = better(wavs, CAPTIONS, lens, baseline=baseline)
        torch.testing.assert_close(found, better(wavs, CAPTIONS, lens, baseline=torch.tensor(base)))


def test_a_rate_of_few_common_divisors_takes_little_memory():
    """If this fails, a mistyped rate takes the memory of the machine."""
    code = (
        "import resource, torch; from speechbrain_clsp.dataio.resample import resample\n"
        "usage = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "wavs, before = torch.zeros(4, 44099, requires_grad=True), usage()\n"
        "resample(wavs, 44099, 16000).sum().backward(); print(usage() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert int(done.stdout) < 400_000, done.stderr  # KB


@pytest.mark.parametrize("rate", [16000, 44100])
def test_quiet_16_bit_values_are_not_amplitudes(clsp, wavs, rate):
    """If this fails, a batch that nobody divided by 32768 is rewarded for its clipping."""
    whole = (wavs * 90).round()
    found = StyleReward(clsp, sample_rate=rate).explain(whole, CAPTIONS)
    assert found.total.tolist() == [-1.0] * 3
    assert all("16-bit values must be divided by 32768" in reason for reason in found.reasons)
