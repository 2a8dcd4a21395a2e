"""The faults that `mutants.py` plants: each is a mistake somebody could make, or one the release makes."""

from dataclasses import dataclass

TESTS = {
    "algo/masked.py": ["tests/algo/test_masked.py"],
    "algo/gae.py": ["tests/algo/test_gae.py"],
    "algo/logprob.py": ["tests/algo/test_logprob.py", "tests/algo/test_latent.py"],
    "algo/lapo.py": ["tests/algo/test_lapo.py", "tests/algo/test_lapo_batches.py"],
    "algo/imitation.py": ["tests/algo/test_imitation.py"],
    "model/layout.py": ["tests/model/test_layout.py"],
    "demos/libero_raw.py": ["tests/demos/test_hdf5.py"],
    "demos/hdf5.py": ["tests/demos/test_hdf5.py"],
    "report/conventions.py": ["tests/demos/test_libero_doctor.py"],
    "model/thinking.py": ["tests/model/test_thinking.py"],
    "model/backbone.py": ["tests/model/test_invariance.py", "tests/train/test_memory.py"],
    "train/learner.py": ["tests/train/test_device.py"],
    "model/adapter.py": ["tests/model/test_adapter.py"],
    "rollout/collect.py": ["tests/rollout/test_slots.py"],
    "train/evaluate.py": ["tests/train/test_evaluate.py"],
    "train/checkpoint.py": ["tests/train/test_checkpoint.py"],
    "model/manifest.py": ["tests/train/test_checkpoint.py"],
    "train/compare.py": ["tests/train/test_compare.py"],
    "train/warmup.py": ["tests/train/test_warmup.py", "tests/train/test_targets.py"],
    "demos/cache.py": ["tests/demos/test_cache.py"],
    "algo/budget.py": ["tests/algo/test_budget.py"],
    "algo/baselines.py": ["tests/algo/test_baselines.py"],
    "algo/health.py": ["tests/algo/test_health.py"],
    "serve/wire.py": ["tests/serve/test_wire.py"],
    "serve/keys.py": ["tests/serve/test_keys.py"],
    "serve/batcher.py": ["tests/serve/test_batcher.py"],
    "serve/server.py": ["tests/serve/test_server.py"],
    "serve/client.py": ["tests/serve/test_client.py"],
}
"""File of the package -> the quick tests that must notice a fault in it."""


@dataclass(frozen=True)
class Mutant:
    """One fault: `old` occurs exactly once in the file and is replaced by `new`."""

    name: str
    file: str
    old: str
    new: str


def _faults(file: str, *rows: tuple[str, str, str]) -> list[Mutant]:
    return [Mutant(name, file, old, new) for name, old, new in rows]


MASKED = _faults(
    "algo/masked.py",
    ("bf16 stays bf16", "torch.promote_types(x.dtype, torch.float32)", "x.dtype"),
    ("mean divides by everything", "mask.sum().clamp(min=1)", "mask.numel()"),
    ("nan at padding enters the mean", "torch.where(mask, x, 0.0).sum()", "(x * mask).sum()"),
    ("biased variance", "(valid.sum() - 1)", "valid.sum()"),
    ("one entry divides by zero", "(valid.sum() - 1).clamp(min=1)", "(valid.sum() - 1)"),
    ("whitening without epsilon", "variance + 1e-8", "variance"),
    ("whitened padding", "torch.where(valid, x - masked_mean(x, valid), 0.0)", "x - masked_mean(x, valid)"),
)

GAE = _faults(
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
)

LOGPROB = _faults(
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
)

LAPO = _faults(
    "algo/lapo.py",
    ("action log-probability averaged over tokens", "self.token_logp.sum(-1)", "self.token_logp.mean(-1)"),
    (
        "clip range turned round",
        "(1 - config.clip_low, 1 + config.clip_high)",
        "(1 - config.clip_high, 1 + config.clip_low)",
    ),
    ("symmetric clip", "1 + config.clip_high)", "1 + config.clip_low)"),
    ("always clipped", "weight * torch.minimum(free, clipped)", "weight * clipped"),
    ("log-ratio overflows", "log_ratio.clamp(-20.0, 20.0)", "log_ratio.clamp(min=-20.0)"),
    ("surrogate with the wrong sign", "-(weight * torch.minimum", "(weight * torch.minimum"),
    (
        "mean over the micro-batch",
        "-(weight * torch.minimum(free, clipped)).sum()",
        "-torch.minimum(free, clipped).mean()",
    ),
    ("action ratio turned round", "new.action_logp - old.action_logp", "old.action_logp - new.action_logp"),
    ("tokens clipped without their number", "weight / tokens", "weight / 1"),
    (
        "tokens clipped together",
        "_by_token(config, new.token_logp - old.token_logp",
        "_by_token(config, (new.token_logp - old.token_logp).mean(1, True)",
    ),
    ("stop ratio turned round", "new.stop_logp - old.stop_logp", "old.stop_logp - new.stop_logp"),
    (
        "stop term without a thought",
        "new.stop_logp - old.stop_logp, advantage, thinking",
        "new.stop_logp - old.stop_logp, advantage, weight",
    ),
    (
        "latent term without a thought",
        "latent_log_ratio, advantage, thinking",
        "latent_log_ratio, advantage, weight",
    ),
    (
        "means swapped",
        "latent_policy.log_ratio(z, old.latent, new.latent,",
        "latent_policy.log_ratio(z, new.latent, old.latent,",
    ),
    (
        "replayed latents taken for the old means",
        "latent_policy.log_ratio(z, old.latent, new.latent,",
        "latent_policy.log_ratio(z, z, new.latent,",
    ),
    ("latent weight forgotten", "config.latent_weight * latent", "latent"),
    ("stop weighted as action", "config.stop_weight * stop", "config.action_weight * stop"),
    (
        "one half in the plain value loss",
        "(weight * error).sum(), torch.zeros",
        "0.5 * (weight * error).sum(), torch.zeros",
    ),
    (
        "no half in the released value loss",
        "0.5 * (weight * torch.maximum(error, held_error)).sum()",
        "(weight * torch.maximum(error, held_error)).sum()",
    ),
    ("smaller of the value errors", "torch.maximum(error, held_error)", "torch.minimum(error, held_error)"),
    (
        "value held on one side",
        ".clamp(-config.value_clip, config.value_clip)",
        ".clamp(max=config.value_clip)",
    ),
    ("released stop weight as in the paper", "stop_weight=1 / 57", "stop_weight=0.1"),
    ("released value unclipped", "value_clip=0.2, ", ""),
    (
        "episodes weighted by their number of decisions",
        "length = valid.sum(1, keepdim=True)",
        "length = valid.sum(1, keepdim=True).float().mean(0, keepdim=True)",
    ),
    ("empty episodes count", "(length > 0).sum().clamp(min=1)", "valid.shape[0]"),
    ("decision weights count padding", "valid / valid.sum().clamp(min=1)", "valid / valid.numel()"),
    ("extremes added up", 'torch.maximum(a[k], b[k]) if k.endswith("_max") else a[k] + b[k]', "a[k] + b[k]"),
    ("kl estimate of first order", "(ratio - 1 - log_ratio)", "(-log_ratio)"),
    (
        "clip share counts everything outside the range",
        "(weight * (clipped < free)).sum()",
        "(weight * (clipped != free)).sum()",
    ),
)

IMITATION = _faults(
    "algo/imitation.py",
    (
        "cosine without its norm",
        "torch.cosine_similarity(\n"
        "        full_precision(terms.latent[taught]), full_precision(labels.latent[taught]), dim=-1\n    )",
        "(full_precision(terms.latent[taught]) * full_precision(labels.latent[taught])).sum(-1)",
    ),
    ("cosine pushed apart", "(1 - cosine).sum()", "(1 + cosine).sum()"),
    (
        "masked latents are taught",
        "taught, valid = labels.latent_mask,",
        "taught, valid = labels.latent_mask | True,",
    ),
    (
        "masked tokens are taught",
        "= labels.latent_mask, labels.action_mask",
        "= labels.latent_mask, labels.action_mask | True",
    ),
    ("cross-entropy averaged per micro-batch", 'reduction="sum") / token_count', 'reduction="mean")'),
    ("stop in the vocabulary at the sampling temperature", "ReleasedStop(1.0)", "ReleasedStop(1.6)"),
    ("stop among candidates at the sampling temperature", "ConsistentStop(1.0)", "ConsistentStop(1.6)"),
    ("candidate weight unused", "config.stop_candidate_weight * candidate_loss", "candidate_loss"),
    ("vocabulary weight unused", "config.stop_vocab_weight * vocab_loss", "vocab_loss"),
    ("nothing divides by zero", "counts.tokens.clamp(min=1)", "counts.tokens"),
    (
        "accuracy over all tokens",
        "(logits.argmax(-1) == tokens).sum() / token_count",
        "(logits.argmax(-1) == tokens).sum() / terms.action_logits.shape[1]",
    ),
)

LAYOUT = _faults(
    "model/layout.py",
    ("latent predicted at its own slot", "return [slot - 1 for slot in", "return [slot for slot in"),
    (
        "stop read at the stop token",
        "+ self.group - 1 for g in range(self.groups)]",
        "+ self.group for g in range(self.groups)]",
    ),
    ("value read at the last latent", "return [state + 1 for state in", "return [state for state in"),
    ("no stop token in a group", "return self.groups * (self.group + 1)", "return self.groups * self.group"),
    (
        "release's mask: unused groups hidden from everyone",
        "~(is_action[None, :, None] & dead[:, None, :])",
        "~dead[:, None, :]",
    ),
    ("actions see the unused groups", " & ~(is_action[None, :, None] & dead[:, None, :])", ""),
    (
        "the chosen group is hidden",
        "group_of[None, :] >= groups[:, None]",
        "group_of[None, :] >= groups[:, None] - 1",
    ),
    (
        "one unused group is seen",
        "group_of[None, :] >= groups[:, None]",
        "group_of[None, :] > groups[:, None]",
    ),
    ("causal action block", "~ahead | (is_action[:, None] & is_action[None, :])", "~ahead"),
    ("everybody sees the actions", "(is_action[:, None] & is_action[None, :])", "is_action[None, :]"),
    ("padding is seen", "key_on[:, : layout.prompt] = prompt_mask", "key_on[:, : layout.prompt] = True"),
    ("rows without any key", "[None] & ~key_on[:, :, None]", "[None] & key_on[:, :, None]"),
    ("image frees one position per token", "done[-1] + max(height, width)", "done[-1] + height * width"),
    (
        "image axes swapped",
        "base + image * rows[inside], base + image * columns[inside]",
        "base + image * columns[inside], base + image * rows[inside]",
    ),
    ("padding is counted", "text = prompt_mask & ~is_image", "text = ~is_image"),
    (
        "a position is skipped before the body",
        "free[:, None] + torch.arange(",
        "free[:, None] + 1 + torch.arange(",
    ),
    ("one token more before the body", "return self.prompt + 1", "return self.prompt + 2"),
    (
        "actions follow the body after a gap",
        "self.body + self.body_length",
        "self.body + self.body_length + 1",
    ),
    ("length without the action slots", "return self.action + self.actions", "return self.action"),
    (
        "latents of a group run backwards",
        "for g in range(self.groups) for j in range(self.group)]",
        "for g in range(self.groups) for j in reversed(range(self.group))]",
    ),
    ("without a thought the value is read before the opening", "or [self.prompt]", "or [self.prompt - 1]"),
    (
        "no query sees itself",
        "ahead = index[:, None] < index[None, :]",
        "ahead = index[:, None] <= index[None, :]",
    ),
    ("stop tokens belong to the next group", "// (layout.group + 1), -1)", "// layout.group, -1)"),
    (
        "padded queries see each other",
        "torch.eye(layout.length, dtype=torch.bool,",
        "torch.ones(layout.length, layout.length, dtype=torch.bool,",
    ),
    (
        "first image's size for all images",
        "rows += [r for r in range(height) for _ in range(width)]",
        "rows += [r for r in range(grids[0][0]) for _ in range(grids[0][1])]",
    ),
    ("a padded prompt starts at its padding", "text.cumsum(1) - text.long()", "text.cumsum(1)"),
    ("free position counts the padding", "free = text.sum(1)", "free = (~is_image).sum(1)"),
    (
        "time axis runs through the image",
        "torch.stack([base, base",
        "torch.stack([base + image * inside, base",
    ),
    (
        "only the time axis counts on",
        "tail[None].expand(3, -1, -1)",
        "torch.stack([tail, 0 * tail, 0 * tail])",
    ),
)

ADAPTER = _faults(
    "model/adapter.py",
    ("merged on loading without its scale", "config.alpha / config.rank)", "1.0)"),
    ("left out of the export", "return found | {f", "return found or {f"),
    ("another base goes unnoticed", "if found != adapter.sha256:", "if not found:"),
    ("bf16 matrices over a bf16 base", "matrix.data = matrix.data.float()", "pass"),
)

THINKING = _faults(
    "model/thinking.py",
    ("goes on at the threshold", "self.scores[self.rows, g] < self", "self.scores[self.rows, g] > self"),
    ("rows leave, masks stay in line", "self.mask[going]", "self.mask[: len(going)]"),
    ("rows leave, positions stay in line", "self.positions[:, going]", "self.positions[:, : len(going)]"),
    ("rows leave, states stay in line", "return last[going]", "return last[: len(going)]"),
    ("rows forget where they began", "= self.rows[going], ", "= going, "),
    ("guessed actions stay in the cache", "self.cache.crop(-self.guessed)", "pass"),
    ("another group's guess", "(groups - 1).clamp(min=0)]", "groups.clamp(max=self.guesses.shape[1] - 1)]"),
    ("actions close up", "self.index[action : action + actions]]", "self.index[end : end + actions]]"),
    ("actions see what follows the stop", "self.seen.mask, groups)", "self.seen.mask, groups * 0 + 99)"),
    ("stop and value states swapped", "= hidden[:, 0], hidden[:, 1]", "= hidden[:, 1], hidden[:, 0]"),
    ("a full batch guesses", "len(opening) <= FEW and", "True and"),
    ("a sampled thought guesses", "and rules.enough < math.inf", "and True"),
)

COLLECT = _faults(
    "rollout/collect.py",
    ("a slot leaves its scene", "(waiting[i][1].task != last, ", "("),
    ("slots build the same scene", "waiting[i][1].task in held, i)", "i)"),
)

EVALUATE = _faults(
    "train/evaluate.py",
    ("a state played twice is full coverage", "== len(pairs) == distinct ==", "== len(pairs) =="),
    ("thoughts cut short are compared", "(said > 0).all(axis=1)", "(said > 0).any(axis=1)"),
    ("rows out of order", "if [e.start for e in episodes] != list(starts):", "if not episodes:"),
)

BACKBONE = _faults(
    "model/backbone.py",
    ("a thought writes into the prompt's cache", "return fork", "return cache"),
    ("activations are kept", "layer.gradient_checkpointing = layer", "layer"),
    ("recomputing goes on outside", "layer.training = False, training", "layer.training = True, training"),
)

LEARNER = _faults(
    "train/learner.py",
    ("rescored terms stay on the GPU", "return moved(found[1], CPU)", "return found[1]"),
    ("weights stay on the CPU", "weight = batch.weight.to(device)", "weight = batch.weight"),
)

RECORDINGS = [
    *_faults(
        "demos/libero_raw.py",
        ("gripper command taken for an open fraction", "(1.0 - np.clip(command, 0.0, 1.0))", "command"),
    ),
    *_faults(
        "demos/hdf5.py",
        ("pictures left upside down", "images[seen, ::-1, ::-1]", "images[seen]"),
        ("observation after the action taken for the one before", "np.maximum(kept - late, 0)", "kept"),
    ),
    *_faults(
        "report/conventions.py",
        (
            "a rotation's quaternion is not looked at in another order",
            "for shift in (1, -1):",
            "for shift in ():",
        ),
    ),
]

WARMUP = _faults(
    "train/warmup.py",
    ("a compressor is pulled towards the thought", "latent=labels.latent.detach())", "latent=labels.latent)"),
    ("passes see the targets again", "mean = read(Thought(latent=mean.d", "read(Thought(latent=mean.d"),
)

VIEWS = _faults(
    "demos/cache.py",
    ("views of another teacher", 'blake2b(f"{identity}\\n{', 'blake2b(f"{'),
    ("a damaged view is believed", "vectors if stored", "vectors if True or stored"),
)

WITHOUT_CRITIC = _faults(
    "algo/baselines.py",
    (
        "an episode is compared with itself too",
        "(rows.sum(1, keepdim=True) - rows) / (group - 1)",
        "rows.mean(1, keepdim=True)",
    ),
    ("only the first two are compared", "(rows != rows[:, :1])", "(rows[:, :2] != rows[:, :1])"),
    ("equal groups are the ones that stay", "(rows != rows[:, :1])", "(rows == rows[:, :1])"),
    ("biased deviation of a group", "rows.std(1, keepdim=True)", "rows.std(1, keepdim=True, correction=0)"),
)

BUDGET = _faults(
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
)

HEALTH = _faults(
    "algo/health.py",
    ("what was never solved is forgotten", "if best >= SOLVED:", "if best >= 0.0:"),
    ("one window is enough", "if len(late) == window and max", "if late and max"),
    ("a run is ended without a warning", "name in limits.stop and lasting", "name in limits.stop"),
    ("the beginning is forgotten", "rows[: limits.window]", "rows[-limits.window :]"),
)

CHECKPOINTS = [
    *_faults(
        "train/checkpoint.py",
        ("the best is dropped", "if path != best and not (", "if not ("),
    ),
    *_faults(
        "model/manifest.py",
        ("a flipped bit is not seen", "if size <= limit and digest(path) != sha256:", "if size < 0:"),
    ),
    *_faults(
        "train/compare.py",
        ("one tail", "min(1.0, float(2 * tail / 2**n))", "min(1.0, float(tail / 2**n))"),
        ("pairs taken for independent", "phi = _phi(a, b, c, d)", "phi = 0.0"),
    ),
]

SERVE = [
    *_faults(
        "serve/wire.py",
        ("objects travel", "|[<>]f[248]", "|[<>]f[248]|.*O.*"),
        (
            "an array may claim more than it holds",
            "math.prod(shape) * dtype.itemsize != len(data)",
            "not shape",
        ),
    ),
    *_faults(
        "serve/keys.py",
        ("LIBERO's gripper upside down", "closed=1.0,\n    open=-1.0,", "closed=-1.0,\n    open=1.0,"),
        (
            "the state's gripper as it comes",
            "_grippers(spec.state), opened, state",
            "_grippers(spec.state), state, state",
        ),
    ),
    *_faults(
        "serve/batcher.py",
        ("first come, first served", "key=lambda w: w.deadline)", "key=lambda w: w.since)"),
        ("thoughts whatever the deadline", "max(fitting, default=min(self._quiet))", "max(self._quiet)"),
        ("what is left over waits for ever", "self._arrived.set()\n        else", "pass\n        else"),
    ),
    *_faults(
        "serve/server.py",
        (
            "any key will do",
            "len(said) == 1 and hmac.compare_digest(",
            "len(said) == 1 or hmac.compare_digest(",
        ),
        ("web pages may ask", "origins=[None]", "origins=None"),
        ("answers under way are dropped", "self._connections - self._busy", "self._connections"),
    ),
    *_faults(
        "serve/client.py",
        ("a late answer is taken for the next one", "self._drop()\n                raise", "raise"),
        ("whatever policy is there", "if greeting != self._greeting:", "if not greeting:"),
    ),
]

MUTANTS = [
    *MASKED,
    *GAE,
    *LOGPROB,
    *LAPO,
    *IMITATION,
    *LAYOUT,
    *ADAPTER,
    *THINKING,
    *BACKBONE,
    *LEARNER,
    *COLLECT,
    *EVALUATE,
    *RECORDINGS,
    *CHECKPOINTS,
    *WARMUP,
    *VIEWS,
    *WITHOUT_CRITIC,
    *BUDGET,
    *HEALTH,
    *SERVE,
]
