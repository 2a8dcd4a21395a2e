"""Faults in what is computed from tensors alone."""

from mutant_table.fault import faults

TESTS = {
    "algo/masked.py": ["tests/algo/test_masked.py"],
    "algo/gae.py": ["tests/algo/test_gae.py"],
    "algo/logprob.py": ["tests/algo/test_logprob.py", "tests/algo/test_latent.py"],
    "algo/baselines.py": ["tests/algo/test_baselines.py"],
    "algo/budget.py": ["tests/algo/test_budget.py"],
    "algo/health.py": ["tests/algo/test_health.py"],
}

MUTANTS = [
    *faults(
        "algo/masked.py",
        ("bf16 stays bf16", "torch.promote_types(x.dtype, torch.float32)", "x.dtype"),
        ("mean divides by everything", "mask.sum().clamp(min=1)", "mask.numel()"),
        ("nan at padding enters the mean", "torch.where(mask, x, 0.0).sum()", "(x * mask).sum()"),
        ("biased variance", "(valid.sum() - 1)", "valid.sum()"),
        ("one entry divides by zero", "(valid.sum() - 1).clamp(min=1)", "(valid.sum() - 1)"),
        ("whitening without epsilon", "variance + 1e-8", "variance"),
        (
            "whitened padding",
            "torch.where(valid, x - masked_mean(x, valid), 0.0)",
            "x - masked_mean(x, valid)",
        ),
    ),
    *faults(
        "algo/gae.py",
        (
            "padding leaks into advantages",
            "torch.where(valid, reward + discount * next_value - value, 0.0)",
            "reward + discount * next_value - value",
        ),
        (
            "no bootstrap on truncation",
            "value.roll(-1, dims=1), last_value[:, None]",
            "value.roll(-1, dims=1), 0.0",
        ),
        (
            "value of the frozen frame after the end",
            "torch.where(continues, value.roll(-1, dims=1), last_value[:, None])",
            "torch.where(continues.roll(1, 0) | True, value.roll(-1, dims=1), last_value[:, None])",
        ),
        ("next value undiscounted", "reward + discount * next_value", "reward + next_value"),
        ("trace without discount", "discount * trace * later", "trace * later"),
        ("discount without trace", "discount * trace * later", "discount * later"),
        ("trace starts from the last value", "torch.zeros_like(last_value)", "last_value"),
        (
            "target without value",
            "torch.where(valid, advantage + value, 0.0)",
            "torch.where(valid, advantage, 0.0)",
        ),
        ("target at padding", "torch.where(valid, advantage + value, 0.0)", "advantage + value"),
        ("gradient through the advantage", "@torch.no_grad()\n", ""),
    ),
    *faults(
        "algo/logprob.py",
        (
            "log-softmax in bf16",
            "torch.log_softmax(full_precision(logits) / temperature, dim=-1)",
            "torch.log_softmax(logits / temperature, dim=-1)",
        ),
        (
            "action log-probability without temperature",
            "_log_softmax(logits, temperature).gather",
            "_log_softmax(logits, 1.0).gather",
        ),
        (
            "entropy summed over tokens",
            "_entropy(logits, temperature).mean(-1)",
            "_entropy(logits, temperature).sum(-1)",
        ),
        ("draws without temperature", "logits.double() / temperature", "logits.double()"),
        ("impossible bins at uniform 0", ">= cdf[..., :-1]", "> cdf[..., :-1]"),
        ("stop index off by one", "torch.arange(1, values.shape[1] + 1,", "torch.arange(0, values.shape[1],"),
        (
            "stop drawn from 0..K-1",
            "_inverse_cdf(stop_logits, temperature, uniform) + 1",
            "_inverse_cdf(stop_logits, temperature, uniform)",
        ),
        (
            "consistent stop without temperature",
            "_at(_log_softmax(stop_logits, self.temperature), groups)",
            "_at(_log_softmax(stop_logits, 1.0), groups)",
        ),
        (
            "consistent stop not normalised over candidates",
            "_at(_log_softmax(stop_logits, self.temperature), groups)",
            "_at(stop_logits / self.temperature - vocab_logsumexp, groups)",
        ),
        (
            "released stop without temperature",
            "full_precision(stop_logits) / self.temperature - vocab",
            "full_precision(stop_logits) - vocab",
        ),
        ("threshold must be exceeded", ">= math.log(threshold)", "> math.log(threshold)"),
        ("threshold on the log-probability itself", ">= math.log(threshold)", ">= threshold"),
        (
            "no fallback below the threshold",
            "reached.int().argmax(-1), best)",
            "reached.int().argmax(-1), torch.zeros_like(best))",
        ),
        ("`first` takes the largest", "torch.where(reached.any(-1), reached.int().argmax(-1), best)", "best"),
        (
            "`mode` reads the vocabulary",
            "return stop_logits.argmax(-1) + 1",
            "return logp_vocab_t1.argmax(-1) + 1",
        ),
        ("`max` reads the candidates", "best = logp_vocab_t1.argmax(-1)", "best = stop_logits.argmax(-1)"),
        ("kl without one half", "/ (2 * sigma**2)", "/ sigma**2"),
        ("kl counts unused latents", "torch.where(used[..., None], move.square(), 0.0)", "move.square()"),
        (
            "gaussian ratio counts unused latents",
            "torch.where(used[..., None], (new - old) * (z - 0.5 * (old + new)), 0.0)",
            "((new - old) * (z - 0.5 * (old + new)))",
        ),
        ("gaussian ratio of first order only", "(z - 0.5 * (old + new))", "(z - old)"),
        ("sigma not squared", "(self.sigma**2 * divisor[self.norm])", "(self.sigma * divisor[self.norm])"),
        ("norm `dim` divides by nothing", '"dim": width,', '"dim": 1,'),
        ("norm `element` counts every slot", "width * used.sum(-1).clamp(min=1)", "width * used.shape[-1]"),
        (
            "drawn latent not rounded to the model's dtype",
            "(mean + self.sigma * eps).to(mean.dtype)",
            "mean + self.sigma * eps",
        ),
        ("noise of standard deviation 1", "(mean + self.sigma * eps)", "(mean + eps)"),
        (
            "deterministic ratio above 1",
            "return -_kl(old_mean, new_mean, used, self.sigma)",
            "return _kl(old_mean, new_mean, used, self.sigma)",
        ),
    ),
    *faults(
        "algo/baselines.py",
        (
            "an episode is compared with itself too",
            "(rows.sum(1, keepdim=True) - rows) / (group - 1)",
            "rows.mean(1, keepdim=True)",
        ),
        ("only the first two are compared", "(rows != rows[:, :1])", "(rows[:, :2] != rows[:, :1])"),
        ("equal groups are the ones that stay", "(rows != rows[:, :1])", "(rows == rows[:, :1])"),
        (
            "biased deviation of a group",
            "rows.std(1, keepdim=True)",
            "rows.std(1, keepdim=True, correction=0)",
        ),
    ),
    *faults(
        "algo/budget.py",
        ("thinking is rewarded", "return reward - price", "return reward + price"),
        ("thoughts are charged for success alone", "return reward - price", "return reward - reward * price"),
        (
            "every decision pays for the longest",
            "return reward - price * latents",
            "return reward - price * latents.amax()",
        ),
        (
            "the price falls for long thoughts",
            "rate * (mean_latents - target))\n",
            "rate * (target - mean_latents))\n",
        ),
        ("short thoughts are paid for", "return max(0.0, price", "return (price"),
        ("the price forgets itself", "return max(0.0, price + rate", "return max(0.0, rate"),
    ),
    *faults(
        "algo/health.py",
        ("what was never solved is forgotten", "if best >= SOLVED:", "if best >= 0.0:"),
        ("one window is enough", "if len(late) == window and max", "if late and max"),
        ("a run is ended without a warning", "name in limits.stop and lasting", "name in limits.stop"),
        ("the beginning is forgotten", "rows[: limits.window]", "rows[-limits.window :]"),
    ),
]
