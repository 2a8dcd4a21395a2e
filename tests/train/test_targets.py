"""What latents point at: teachers by name, the base's own eyes, compressors that learn from actions alone.

Axes: F frames, V image tokens, D width.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lastr1.config import Config, WarmupConfig
from lastr1.demos.dataset import Demonstration, DemonstrationSet
from lastr1.demos.teacher import CallableTeacher, Targets, ThumbnailTeacher
from lastr1.model import weights
from lastr1.model.policy import Thought
from lastr1.train import targets
from lastr1.train.compress import Eyes, QFormer, StridedConv, compressed_constant
from lastr1.train.gap import measure_gap
from lastr1.train.targets import lesson_targets, named_teacher
from lastr1.train.warmup import Teaching, rescale
from lastr1.types import UserError

STEPS = 9


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    demo = Demonstration(
        task=0,
        instruction="put the red block on it",
        frames={"camera0": rng.integers(0, 256, (STEPS + 1, 64, 64, 3), dtype=np.uint8)},
        states=np.zeros((STEPS + 1, 1), np.float32),
        actions=rng.uniform(-0.5, 0.5, (STEPS, 4)).astype(np.float32),
    )
    return DemonstrationSet([demo], chunk=3, latents=8, target_stride=2)


def config(**knobs):
    return Config(name="toy", device="cpu", warmup=WarmupConfig(**knobs))


def taught(bundle, data, tmp_path, teacher=None, **knobs):
    wanted = config(**knobs)
    return lesson_targets(wanted, bundle, data, teacher or named_teacher(wanted), tmp_path)


def loud(identity, order):
    """A teacher of 80 channels, each louder than the one before it in `order`."""
    scale = np.empty(80, np.float32)
    scale[order] = np.arange(1, 81)

    def see(frames):
        return np.outer(1 + frames[:, 0, 0, 0], scale).astype(np.float32)

    return CallableTeacher(identity=identity, function=see)


@pytest.mark.parametrize("name", ["dino", "dinov3", "dinov3:", "thumbnails", ""])
def test_a_teacher_that_does_not_exist(name):
    with pytest.raises(UserError, match=f"^no teacher '{name}': use thumbnail, mobilenet or dinov3:NAME"):
        named_teacher(config(teacher=name))


def test_teachers_by_name(monkeypatch):
    opened = []
    monkeypatch.setattr(targets, "open_dinov3", lambda *asked: opened.append(asked))
    monkeypatch.setattr(targets, "open_mobilenet", lambda *asked: opened.append(asked))
    assert named_teacher(config()) == ThumbnailTeacher()
    named_teacher(config(teacher="dinov3:models/some:thing"))
    named_teacher(config(teacher="mobilenet"))
    assert opened == [("models/some:thing", torch.device("cpu")), (torch.device("cpu"),)]


def test_thumbnails_leave_nothing_on_disk(tiny, data, tmp_path):
    found, identity = taught(tiny(), data, tmp_path)
    assert (identity, found.vectors.shape) == ("thumbnail", (STEPS + 1, 64))
    assert list(tmp_path.iterdir()) == []


def test_views_are_kept_in_the_run_or_where_the_knob_says(tiny, data, tmp_path):
    bundle, teacher = tiny(), loud("loud", np.arange(80))
    first, _ = taught(bundle, data, tmp_path / "run", teacher)
    assert len(list((tmp_path / "run" / "targets").iterdir())) == 1
    second, _ = taught(bundle, data, tmp_path / "run2", teacher, cache=str(tmp_path / "shared"))
    assert len(list((tmp_path / "shared").iterdir())) == 1
    assert not (tmp_path / "run2").exists()
    assert np.array_equal(first.vectors, second.vectors)


def test_channels_of_another_teacher_are_not_kept(tiny, data, tmp_path):
    """A base that was taught 64 channels of one teacher; its files say whose they were."""
    quiet, other = loud("quiet", np.arange(80)[::-1]), loud("loud", np.arange(80))
    channels = tuple(range(1, 65))
    base = weights.with_channels(tiny(), channels, "quiet")
    weights.save(base, tmp_path / "base")
    base = weights.load(tmp_path / "base")
    assert (base.channels, base.teacher) == (channels, "quiet")
    assert taught(base, data, tmp_path, quiet)[0].channels == channels
    assert taught(base, data, tmp_path, other)[0].channels == tuple(range(16, 80))


def test_a_policy_that_does_not_name_its_teacher_knew_thumbnails(tiny, tmp_path):
    weights.save(weights.with_channels(tiny(), (3, 5), "thumbnail"), tmp_path / "old")
    path = tmp_path / "old" / "lastr1.json"
    text = path.read_text()
    assert text.count(',\n "teacher": "thumbnail"') == 1
    path.write_text(text.replace(',\n "teacher": "thumbnail"', ""))
    assert weights.load(tmp_path / "old").teacher == "thumbnail"


def test_channels_of_every_frame_anew(tiny, data, tmp_path):
    """Top 64 of 80 by magnitude, frame by frame, in ascending channel order."""
    rng = np.random.default_rng(1)
    table = rng.standard_normal((STEPS + 1, 80), dtype=np.float32)
    teacher = CallableTeacher(identity="table", function=lambda frames: table)
    found, _ = taught(tiny(), data, tmp_path, teacher, channels="per_image")
    assert found.channels == ()
    for row, kept in zip(table, found.vectors, strict=True):
        limit = np.sort(np.abs(row))[-64]
        assert kept.tolist() == row[np.abs(row) >= limit].tolist()


def eyes(bundle, frames):
    """Image tokens of whole frames, by the policy's own prompt."""
    prompts = bundle.prompts
    prompt = prompts.batch(["put"] * len(frames), frames)
    seen = bundle.policy.backbone.look(prompt)
    return seen.embeds[seen.is_image].reshape(len(frames), -1, bundle.policy.backbone.width)


@torch.no_grad()
def test_average_pool_is_the_mean_of_the_bases_own_tokens(tiny, data, tmp_path):
    """Crop or not, the frame is whole; and it stays what it was when the tower moves on."""
    bundle = tiny(crop=0.8)
    tokens = eyes(bundle, data.frames["camera0"])
    found, identity = taught(bundle, data, tmp_path, target="average_pool")
    assert found.vectors == pytest.approx(tokens.mean(1).numpy(), abs=1e-5)
    assert found.channels == tuple(range(64))
    for weight in bundle.policy.backbone.net.model.visual.parameters():
        weight.mul_(1.5)
    assert Eyes(bundle, pooled=True).identity != identity
    views = Eyes(tiny(), pooled=False).embed(data.frames["camera0"])
    assert views == pytest.approx(tokens.flatten(1).numpy(), abs=1e-5)


def test_shapes_of_the_compressors():
    """conv over 2 x 2 tokens: (64 + 1) 512 + (4 * 512 + 1) 512 + (512 + 1) 64.  Q-Former: a query, two blocks
    of 4 D^2 + 4 D (attention), 8 D^2 + 5 D (MLP) and three norms of 2 D."""
    conv, former = StridedConv(64, 4), QFormer(64)
    assert sum(p.numel() for p in conv.parameters()) == 65 * 512 + (4 * 512 + 1) * 512 + 513 * 64
    assert sum(p.numel() for p in former.parameters()) == 64 + 2 * (12 * 64**2 + 15 * 64)
    views = torch.randn(2, 3, 4 * 64)
    for compress in (conv, former):
        assert compress(views).shape == (2, 3, 64)
        assert torch.allclose(compress(views)[1, 2], compress(views[1, 2]), atol=1e-5)
    with pytest.raises(UserError, match="8 heads of a Q-Former do not divide 36"):
        QFormer(36)


def test_the_convolution_reads_tokens_as_a_square():
    """One weight of the middle layer alone: row 1, column 0 of a 2 x 2 grid is token 2."""
    conv = StridedConv(8, 4)
    with torch.no_grad():
        for layer in (conv.layers[0], conv.layers[2], conv.layers[4]):
            layer.weight.zero_()
            layer.bias.zero_()
        conv.layers[0].weight[0, 3] = 1
        conv.layers[2].weight[0, 0, 1, 0] = 1
        conv.layers[4].weight[5, 0] = 1
        views = torch.zeros(1, 4, 8)
        views[0, 2, 3] = 7.0  # large, so that GELU is the identity
        assert conv(views.flatten(1))[0].tolist() == pytest.approx([0, 0, 0, 0, 0, 7, 0, 0])


@pytest.fixture
def compressing(tiny, data, tmp_path):
    def make(target, **knobs):
        torch.manual_seed(1)
        bundle = tiny()
        found, _ = taught(bundle, data, tmp_path, target=target)
        job = WarmupConfig(target=target, **{"batch": 4, "iterations": 3, **knobs})
        return Teaching(bundle, data, found, job, 0)

    return make


def gradients(module):
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compressor_learns_from_the_actions_after_its_own_targets_alone(compressing, checkpointing):
    """8.5.  Its gradient is that of the teacher-forced action loss; the policy's is that of fixed targets."""
    teaching = compressing("q_former", checkpointing=checkpointing)
    policy, compress = teaching.bundle.policy.train(), teaching.compress
    lesson = teaching.lesson()
    loss = teaching.loss(lesson)
    loss.total.backward()
    ours, theirs = gradients(compress), gradients(policy)

    policy.zero_grad(), compress.zero_grad()
    labels = lesson.labels
    slots = rescale(compress(views_of(teaching, labels)), 1.0)
    read = policy.read(policy.backbone.look(lesson.prompt), Thought(latent=slots, groups=labels.groups))
    logp = torch.log_softmax(read.action_logits, -1).gather(-1, labels.tokens[..., None])[..., 0]
    (-logp[labels.action_mask].mean()).backward()
    close(ours, gradients(compress))

    policy.zero_grad()
    fixed = compressing("q_former", checkpointing=checkpointing)
    fixed.compress, fixed.compresses = torch.nn.Identity(), False
    still = replace(lesson, labels=replace(labels, latent=labels.latent.detach()))
    plain = fixed.loss(still)
    assert plain.total.item() == pytest.approx(loss.total.item(), rel=1e-6)
    plain.total.backward()
    close(theirs, gradients(fixed.bundle.policy))


def views_of(teaching, labels):
    """The rows whose compressed view each target is."""
    views = torch.from_numpy(teaching.targets.vectors)
    made = teaching.compress(views).detach()
    index = (labels.latent.detach()[..., None, :] - made).abs().sum(-1).argmin(-1)
    return views[index]


def close(ours, theirs):
    assert ours.keys() == theirs.keys()
    scale = max(float(g.abs().max()) for g in theirs.values())
    assert scale > 0
    for name, grad in theirs.items():
        torch.testing.assert_close(ours[name], grad, atol=2e-5 * scale, rtol=1e-3, msg=name)


@pytest.mark.parametrize("target", ["strided_conv", "q_former"])
def test_a_compressor_moves_and_its_constant_with_it(compressing, target):
    teaching = compressing(target, lr=1e-2)
    before = {k: v.clone() for k, v in teaching.compress.state_dict().items()}
    constant = teaching.constant_cosine()
    assert teaching.constant() == {}
    list(teaching.steps())
    assert any(not torch.equal(v, before[k]) for k, v in teaching.compress.state_dict().items())
    assert teaching.constant_cosine() != constant
    gap = measure_gap(teaching, 4)
    assert gap.constant_cosine == teaching.constant_cosine()


@pytest.mark.parametrize("damage", ["teaching.json", "compressor.safetensors"])
def test_what_the_lessons_to_come_depend_on(compressing, tmp_path, damage):
    """Dice, running RMS and compressor come back from a checkpoint's files; a damaged one is named."""
    first = compressing("q_former", lr=1e-2)
    list(first.steps())
    for name, content in first.memory().items():
        (tmp_path / name).write_bytes(content)
    again = compressing("q_former", lr=1e-2)
    again.recall(tmp_path)
    assert again.memory() == first.memory()
    assert torch.equal(again.lesson().labels.latent, first.lesson().labels.latent)
    whole = (tmp_path / damage).read_bytes()
    for broken in (whole[:-9], b""):
        (tmp_path / damage).write_bytes(broken)
        with pytest.raises(UserError, match=f"^{tmp_path} cannot be resumed from "):
            compressing("q_former").recall(tmp_path)


def test_the_constant_of_a_compressor_by_hand():
    """Views (1, 0) and (0, 1) as they are: 1 / sqrt(2)."""
    views = Targets(vectors=np.eye(2, dtype=np.float32), channels=(), constant_cosine=1.0)
    found = compressed_constant(torch.nn.Identity(), views, torch.device("cpu"))
    assert found == pytest.approx(2**-0.5)


def test_views_come_from_the_cache(tiny, data, tmp_path, monkeypatch):
    """A second start of the same run asks nobody."""
    first, _ = taught(tiny(), data, tmp_path, target="strided_conv")
    monkeypatch.setattr(Eyes, "embed", lambda self, frames: pytest.fail("asked again"))
    second, _ = taught(tiny(), data, tmp_path, target="strided_conv")
    assert np.array_equal(first.vectors, second.vectors)
