"""Faults in the losses."""

from mutant_table.fault import faults

TESTS = {
    "algo/lapo.py": ["tests/algo/test_lapo.py", "tests/algo/test_lapo_batches.py"],
    "algo/imitation.py": ["tests/algo/test_imitation.py"],
}

MUTANTS = [
    *faults(
        "algo/lapo.py",
        (
            "action log-probability averaged over tokens",
            "self.token_logp.sum(-1)",
            "self.token_logp.mean(-1)",
        ),
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
        (
            "action ratio turned round",
            "new.action_logp - old.action_logp",
            "old.action_logp - new.action_logp",
        ),
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
        (
            "smaller of the value errors",
            "torch.maximum(error, held_error)",
            "torch.minimum(error, held_error)",
        ),
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
        (
            "extremes added up",
            'torch.maximum(a[k], b[k]) if k.endswith("_max") else a[k] + b[k]',
            "a[k] + b[k]",
        ),
        ("kl estimate of first order", "(ratio - 1 - log_ratio)", "(-log_ratio)"),
        (
            "clip share counts everything outside the range",
            "(weight * (clipped < free)).sum()",
            "(weight * (clipped != free)).sum()",
        ),
    ),
    *faults(
        "algo/imitation.py",
        (
            "cosine without its norm",
            "torch.cosine_similarity(\n"
            "        full_precision(terms.latent[taught]), full_precision(labels.latent[taught])"
            ", dim=-1\n    )",
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
    ),
]
