"""Faults in the policy."""

from mutant_table.fault import faults

TESTS = {
    "model/layout.py": ["tests/model/test_layout.py"],
    "model/adapter.py": ["tests/model/test_adapter.py"],
    "model/thinking.py": ["tests/model/test_thinking.py"],
    "model/backbone.py": ["tests/model/test_invariance.py", "tests/train/test_memory.py"],
    "model/manifest.py": ["tests/train/test_checkpoint.py"],
}

MUTANTS = [
    *faults(
        "model/layout.py",
        ("latent predicted at its own slot", "return [slot - 1 for slot in", "return [slot for slot in"),
        (
            "stop read at the stop token",
            "+ self.group - 1 for g in range(self.groups)]",
            "+ self.group for g in range(self.groups)]",
        ),
        ("value read at the last latent", "return [state + 1 for state in", "return [state for state in"),
        (
            "no stop token in a group",
            "return self.groups * (self.group + 1)",
            "return self.groups * self.group",
        ),
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
        (
            "without a thought the value is read before the opening",
            "or [self.prompt]",
            "or [self.prompt - 1]",
        ),
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
    ),
    *faults(
        "model/adapter.py",
        ("merged on loading without its scale", "config.alpha / config.rank)", "1.0)"),
        ("left out of the export", "return found | {f", "return found or {f"),
        ("another base goes unnoticed", "if found != adapter.sha256:", "if not found:"),
        ("bf16 matrices over a bf16 base", "matrix.data = matrix.data.float()", "pass"),
    ),
    *faults(
        "model/thinking.py",
        ("goes on at the threshold", "self.scores[self.rows, g] < self", "self.scores[self.rows, g] > self"),
        ("rows leave, masks stay in line", "self.mask[going]", "self.mask[: len(going)]"),
        ("rows leave, positions stay in line", "self.positions[:, going]", "self.positions[:, : len(going)]"),
        ("rows leave, states stay in line", "return last[going]", "return last[: len(going)]"),
        ("rows forget where they began", "= self.rows[going], ", "= going, "),
        ("guessed actions stay in the cache", "self.cache.crop(-self.guessed)", "pass"),
        (
            "another group's guess",
            "(groups - 1).clamp(min=0)]",
            "groups.clamp(max=self.guesses.shape[1] - 1)]",
        ),
        ("actions close up", "self.index[action : action + actions]]", "self.index[end : end + actions]]"),
        ("actions see what follows the stop", "self.seen.mask, groups)", "self.seen.mask, groups * 0 + 99)"),
        ("stop and value states swapped", "= hidden[:, 0], hidden[:, 1]", "= hidden[:, 1], hidden[:, 0]"),
        ("a full batch guesses", "len(opening) <= FEW and", "True and"),
        ("a sampled thought guesses", "and rules.enough < math.inf", "and True"),
    ),
    *faults(
        "model/backbone.py",
        ("a thought writes into the prompt's cache", "return fork", "return cache"),
        ("activations are kept", "layer.gradient_checkpointing = layer", "layer"),
        (
            "recomputing goes on outside",
            "layer.training = False, training",
            "layer.training = True, training",
        ),
    ),
    *faults(
        "model/manifest.py",
        ("a flipped bit is not seen", "if size <= limit and digest(path) != sha256:", "if size < 0:"),
    ),
]
