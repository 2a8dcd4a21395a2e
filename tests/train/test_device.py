"""The policy on a GPU: a pretended one that refuses what a real one would, and a real one where there is one.

Axes: B decisions, L latent slots, D width.
"""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lastr1.cli import main
from lastr1.config import AdapterConfig, LapoConfig, OptimizerConfig
from lastr1.model import weights
from lastr1.model.policy import LatentPolicy
from lastr1.rollout.batch import Decisions, Minibatch, moved
from lastr1.train import jobs
from lastr1.train.grounding import _annotate, join
from lastr1.train.learner import Learner

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
DEVICE, SET_DATA = Tensor.device.__get__, Tensor.data.__set__
BETWEEN = (Tensor.copy_, torch._has_compatible_shallow_copy_type)
"""what may take tensors of both"""


class MixedDevices(RuntimeError):
    """Tensors of two devices met."""


def on_gpu(x):
    return "gpu" in vars(x)


def tensors_in(value):
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)


class PretendedGpu(TorchFunctionMode):
    """Tensors moved to `GPU` say that they are there, and so does what is computed from them.

    Their numbers stay in this machine's memory, so results are those of the CPU; what a GPU would refuse
    (`MixedDevices`) fails here as it would there.
    """

    computed = 0
    """operations there"""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.device:
            return func(*args, **kwargs)
        if func == DEVICE:
            return GPU if on_gpu(args[0]) else CPU
        if func == SET_DATA:
            vars(args[0]).update(vars(args[1]))
            return func(*args)
        if func in (Tensor.to, Tensor.cpu):
            return self._move(func, args, kwargs)
        return self._compute(func, args, kwargs)

    def _compute(self, func, args, kwargs):
        found = list(tensors_in((args, kwargs)))
        self._check(func, found)
        there = any(on_gpu(x) for x in found)
        self.computed += there
        if kwargs.get("device") is not None:
            there, kwargs["device"] = torch.device(kwargs["device"]).type == "cuda", CPU
        result = func(*args, **kwargs)
        for x in tensors_in(result):
            if there and not any(x is y for y in found):
                x.gpu = True
        return result

    @staticmethod
    def _check(func, found):
        """No operation takes tensors of both, but for copies, numbers, and indices of a tensor there."""
        there = [x for x in found if on_gpu(x)]
        here = [tuple(x.shape) for x in found if not on_gpu(x) and x.dim() > 0]
        if there and func is Tensor.numpy:
            raise MixedDevices("numpy() of a tensor on the GPU")
        index = func is Tensor.__getitem__ and on_gpu(found[0])
        if there and here and not index and func not in BETWEEN:
            raise MixedDevices(f"{func.__name__}: {here} on the CPU")

    @staticmethod
    def _move(func, args, kwargs):
        first, *rest = args
        there = on_gpu(first)
        for x in (*rest, *kwargs.values()):
            if isinstance(x, str | torch.device):
                there = torch.device(x).type == "cuda"
            elif isinstance(x, Tensor):
                there = on_gpu(x)
        there = there and func is not Tensor.cpu

        def plain(x):
            return CPU if isinstance(x, str | torch.device) else x

        result = func(first, *map(plain, rest), **{name: plain(x) for name, x in kwargs.items()})
        if result is first and there != on_gpu(first):
            result = first.clone()
        if there:
            result.gpu = True
        return result


@pytest.fixture
def gpu(monkeypatch):
    """`gpu()`: a context in which `cuda` is there, pretended."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    return PretendedGpu


def test_the_pretended_gpu_refuses_what_a_gpu_would(gpu):
    with gpu():
        here, there = torch.ones(3), torch.ones(3).to("cuda:0")
        assert (here.device, there.device) == (CPU, GPU)
        layer = torch.nn.Linear(3, 3)
        with pytest.raises(MixedDevices):
            layer(there)
        layer.to(GPU)
        assert layer(there).device == layer.weight.device == GPU
        layer(there).sum().backward()
        assert layer.weight.grad.device == GPU
        for mixing in (
            lambda: here + there,
            lambda: torch.cat([there, here]),
            lambda: layer(here),
            lambda: here[there > 0],
            lambda: there.index_put_((torch.tensor([0]),), here[:1]),
            lambda: torch.stack([there, torch.zeros(3, device=CPU)]),
            there.numpy,
        ):
            with pytest.raises(MixedDevices):
                mixing()
        assert (there + torch.tensor(1.0)).device == there[torch.arange(2)].device == GPU
        assert there.cpu().device == here.to(torch.float64).device == CPU
        assert (
            torch.arange(3, device=GPU).device == there.new_zeros(2).device == here.to("cuda").device == GPU
        )


LAPO = LapoConfig(action_weight=0.7, stop_weight=0.3, latent_weight=0.5)


def learnt(bundle, decided, **knobs):
    """Figures of one update, gradients, and terms before it."""
    learner = Learner(bundle, LAPO, OptimizerConfig(micro_batch=3, **knobs))
    stored = Decisions.stack(decided)
    old = learner.rescore(stored)
    count = len(stored)
    batch = Minibatch(
        decisions=stored,
        old=replace(old, token_logp=old.token_logp + 0.01),
        advantage=torch.linspace(-1, 1, count),
        target=torch.linspace(0, 3, count),
        weight=torch.full((count,), 1 / count),
    )
    figures = learner.update(batch)
    grads = {n: p.grad.to(CPU) for n, p in bundle.policy.named_parameters() if p.grad is not None}
    return figures, grads, old


@pytest.mark.parametrize("knobs", [{}, {"stop_likelihood": "released", "latent_policy": "deterministic"}])
def test_an_update_mixes_no_devices(tiny, played, gpu, knobs):
    """Terms, gradients and figures are the CPU's, bit by bit, and old terms come back to it."""
    decided = played(tiny(**knobs), 5)
    figures, grads, old = learnt(tiny(**knobs), decided)
    bundle = tiny(**knobs)
    with gpu():
        bundle.policy.to(GPU)
        others, there, terms = learnt(bundle, decided)
        assert bundle.policy.device == GPU
        assert {x.device for x in vars(terms).values()} == {CPU}
        assert {p.device for p in bundle.policy.parameters()} == {GPU}
    assert others == figures
    assert all(torch.equal(there[name], grad) for name, grad in grads.items())
    assert all(torch.equal(getattr(terms, name), x) for name, x in vars(old).items())


def test_an_adapter_mixes_no_devices(tiny, played, gpu, tmp_path):
    weights.save(tiny(), tmp_path / "base")

    def adapted():
        torch.manual_seed(0)
        return weights.load(tmp_path / "base", adapter=AdapterConfig(rank=2, vision=True))

    decided, bundle = played(adapted(), 4), adapted()
    figures, grads, _ = learnt(adapted(), decided)
    with gpu():
        bundle.policy.to(GPU)
        others, there, _ = learnt(bundle, decided)
    assert others == figures
    assert all(torch.equal(there[name], grad) for name, grad in grads.items())
    assert len(there) == len(grads) > 8


@pytest.mark.parametrize("schedule", ["plain", "fused", "static", "speculative"])
@pytest.mark.parametrize("rule", ["first", "max", "mode"])
def test_a_decision_mixes_no_devices(tiny, observations, noise, gpu, schedule, rule):
    bundle = tiny(schedule=schedule, eval_stop=rule, stop_threshold=1e-3)
    seen, dice = observations(4), noise(bundle, range(4))
    wanted = [bundle.policy.decide(bundle.prompts.build(seen), x) for x in (dice, None)]
    with gpu():
        policy = bundle.policy.to(GPU)
        prompt = bundle.prompts.build(seen, GPU)
        found = [policy.decide(prompt, x) for x in (moved(dice, GPU), None)]
        assert {x.device for decision in found for x in vars(decision.terms).values()} == {GPU}
    for decision, right in zip(found, wanted, strict=True):
        assert torch.equal(decision.tokens, right.tokens)
        assert torch.equal(decision.thought.latent, right.thought.latent)
        assert torch.equal(decision.terms.stop_logp, right.terms.stop_logp)


def test_every_job_on_a_gpu(toy, gpu, tmp_path, monkeypatch):
    """Grounding, warm-up, reinforcement, evaluation, a film: the files are those of the CPU."""
    monkeypatch.setattr(jobs, "annotated_pictures", lambda config, _: join([_annotate(config, 0)]))
    monkeypatch.setattr(jobs, "VIDEO", 32)

    def run(job, recipe, root, *knobs):
        out = ("--device", root.name, "--out", root / job)
        assert main([job, recipe, *toy, *map(str, (*out, *knobs))]) == 0
        return root / job

    def chain(root):
        base = run("ground", "tabletop_base", root, "--grounding.iterations", 2, "--grounding.batch", 4)
        warmup = run("warmup", "tabletop", root, "--base", base / "last")
        policy = run("train", "tabletop", root, "--checkpoint", warmup / "last") / "last"
        run("evaluate", "tabletop", root, "--checkpoint", policy, "--evaluate.videos", 1)
        return policy

    plain = chain(tmp_path / "cpu")
    with gpu() as mode:
        placed = chain(tmp_path / "cuda")
    assert mode.computed > 10_000
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, two = load_file(plain / name), load_file(placed / name)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_autocast_follows_the_policy(tiny, played, monkeypatch):
    """bf16 is asked for where the weights are."""
    asked = []
    monkeypatch.setattr(LatentPolicy, "device", torch.device("meta"))
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype, enabled: asked.append((kind, dtype, enabled)))
    Learner(tiny(), LAPO, OptimizerConfig(autocast=True))._precision()
    assert asked == [("meta", torch.bfloat16, True)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is False")
def test_a_real_gpu_computes_what_the_cpu_does(tiny, played, observations, noise, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    near = {"atol": 1e-4, "rtol": 1e-4}
    bundle, other = tiny(), tiny()
    other.policy.to("cuda")
    seen, dice = observations(4), noise(bundle, range(4))
    one = bundle.policy.decide(bundle.prompts.build(seen), dice)
    device = other.policy.device
    two = moved(other.policy.decide(other.prompts.build(seen, device), moved(dice, device)), CPU)
    assert torch.equal(one.tokens, two.tokens)
    for name, x in vars(one.terms).items():
        torch.testing.assert_close(getattr(two.terms, name), x, **near, msg=name)
    decided = played(tiny(), 5)
    (figures, grads, old), (others, there, terms) = (learnt(x, decided) for x in (bundle, other))
    for name, x in vars(old).items():
        torch.testing.assert_close(getattr(terms, name), x, **near, msg=name)
    assert others == pytest.approx(figures, rel=1e-3, abs=1e-4)
    for name, grad in grads.items():
        torch.testing.assert_close(there[name], grad, atol=1e-4 * float(grad.abs().max()) + 1e-6, rtol=1e-3)
