"""The policy against arrays recorded from the authors' code: every `model_*` case, whatever its size.

Axes: B decisions, P padded prompt, K stop candidates, L latent slots, N action tokens, S whole sequence.
Tolerances are those of the reference's README or tighter; `-s` prints the largest difference of every array.
"""

import json

import pytest
import torch

from lastr1.algo.lapo import PolicyTerms, decision_weights, lapo_loss
from lastr1.algo.logprob import token_logp
from lastr1.config import LapoConfig
from lastr1.model.images import patchify
from lastr1.model.layout import Layout, attention_mask, sequence_positions
from lastr1.model.policy import Noise, Thought

SUMMED = 2e-3  # log-probability of a whole chunk
LOSS = 1e-4  # of terms that differ by rounding; given the terms it is exact to 1e-5 (test_losses.py)
GRADIENT = 2e-4  # relative L2 (README: 1e-3)


def middle(probability, chosen):
    """The number in [0, 1) that draws `chosen` from a categorical."""
    mine = probability.gather(-1, chosen[..., None])[..., 0]
    return probability.cumsum(-1).gather(-1, chosen[..., None])[..., 0] - mine / 2


def dictated(case, chosen, ids=None):
    """Noise that draws the stop `chosen` (and the action tokens `ids`)."""
    rows = torch.arange(case.batch)
    uniform = torch.zeros(case.batch, case.actions, dtype=torch.float64)
    if ids is not None:
        logits = case.rollout["action_logits"][chosen, rows].double()
        uniform = middle(torch.softmax(logits / case.facts["temperature"], -1), ids - case.first)
    return Noise(
        latent=torch.zeros(case.batch, case.groups * case.group, case.rollout["latents"].shape[-1]),
        stop=middle(case.rollout["stop_choice_prob_t16"].double(), chosen),
        action=uniform,
    )


def test_prompt(case):
    """Tokens, padding, patches and positions as the release lays them out."""
    prompt, inputs = case.prompt(), case.inputs
    on = prompt.mask
    assert on.tolist() == inputs["attention_mask"][:, : case.padded].bool().tolist()
    assert on.sum(1).tolist() == inputs["prompt_lengths"].tolist()
    assert torch.equal(prompt.token_ids[on], inputs["input_ids"][:, : case.padded][on])
    patch = case.facts["image_processor"]["patch_size"]
    case.check("pixel_values", patchify(inputs["images"], patch), inputs["pixel_values"], 1e-6)
    case.check("pixel_values of the prompt", prompt.patches, inputs["pixel_values"].flatten(0, 1), 1e-6)
    assert [(1, *grid) for grid in prompt.grid * case.batch] == [
        tuple(g) for g in inputs["image_grid_thw"].tolist()
    ]


def test_layout(case):
    """The placeholders of the recorded sequence stand where our index table puts them."""
    layout, ids, token = case.layout, case.inputs["input_ids"], case.facts["token_ids"]
    assert ids.shape[1] == layout.length
    assert (ids[:, layout.prompt] == token["<latent_start>"]).all()
    assert (ids[:, layout.latent_slots()] == token["<latent_pad>"]).all()
    assert (ids[:, layout.stop_tokens()] == token["<latent_end>"]).all()
    assert (ids[:, layout.action :] == case.first).all()
    assert layout.action - layout.body == case.facts["body_length"]


def test_positions_and_masks(case):
    prompt = case.prompt()
    seen = case.policy().backbone.look(prompt)
    positions = sequence_positions(case.layout, seen.positions, seen.free)
    on = torch.cat(
        [prompt.mask, torch.ones(case.batch, case.layout.length - case.padded, dtype=torch.bool)], dim=1
    )
    prefill = case.facts["prefill_length"]
    recorded = case.inputs["position_ids_prefill"]
    assert torch.equal(positions[:, :, :prefill][:, on[:, :prefill]], recorded[:, on[:, :prefill]])
    for kind in ("on", "off"):
        assert torch.equal(positions[:, on], case.train[f"{kind}_position_ids"][:, on])
        groups = case.train[f"{kind}_chosen_length"] // case.group
        mask = attention_mask(case.layout, prompt.mask, groups)
        assert mask[:, 0, -1].tolist() == case.train[f"{kind}_attention_mask"].bool().tolist()
    # a decoded slot sits at physical index + delta, where the delta does not count the padding
    physical = torch.arange(case.padded, case.layout.length)
    assert torch.equal(positions[0][:, case.padded :], physical + case.inputs["rope_deltas"])


@torch.no_grad()
def test_prefill(case):
    policy, prompt, rollout = case.policy(), case.prompt(), case.rollout
    seen = policy.backbone.look(prompt)
    case.check("image_embeds", seen.embeds[seen.is_image], rollout["image_embeds"])
    case.check("deepstack_embeds", torch.stack(seen.deepstack), rollout["deepstack_embeds"])
    layout = Layout(prompt=case.padded, groups=0, group=1, actions=0)
    opening = policy.backbone.embed(torch.full((case.batch, 1), policy.tokens.latent_start))
    hidden = policy.backbone(
        torch.cat([seen.embeds, opening], dim=1),
        sequence_positions(layout, seen.positions, seen.free),
        attention_mask(layout, prompt.mask, torch.zeros(case.batch, dtype=torch.long)),
        seen=seen,
    )
    hidden[:, : case.padded][~prompt.mask] = 0
    case.check("prefill_hidden", hidden, rollout["prefill_hidden"])
    case.check("prefill_last_hidden", hidden[:, -1], rollout["prefill_last_hidden"])


@pytest.mark.parametrize("path", ["cache", "one pass"])
def test_every_forced_stop(case, path):
    """With the cache, and the same thought in one pass: all groups, values, logits, greedy tokens."""
    policy, rollout, prompt = case.policy(), case.rollout, case.prompt()
    states = []
    hook = policy.value_head.register_forward_pre_hook(lambda _, args: states.append(args[0]))
    for g in range(case.groups):
        chosen = torch.full((case.batch,), g)
        if path == "cache":
            decision = policy.decide(prompt, dictated(case, chosen))
            assert decision.thought.groups.tolist() == (chosen + 1).tolist()
            case.check("latents fed (cache)", decision.thought.latent, rollout["latents"])
        else:
            with torch.no_grad():
                policy.terms(
                    prompt,
                    Thought(latent=rollout["latents"], groups=chosen + 1),
                    rollout["greedy_ids"][g] - case.first,
                )
        read = policy.reading
        case.check(f"latents ({path})", read.mean, rollout["latents"])
        case.check(f"stop_hidden ({path})", read.stop_state, rollout["stop_hidden"])
        case.check(f"value_hidden[{g}] ({path})", states[-1], rollout["value_hidden"][:, g])
        case.check(f"stop_logit ({path})", read.stop_logits, rollout["stop_logit"])
        case.check(f"value_candidates[{g}] ({path})", read.value, rollout["value_candidates"][:, g])
        case.check(f"value_forced[{g}] ({path})", read.value, rollout["value_forced"][g])
        case.check(f"action_logits[{g}] ({path})", read.action_logits, rollout["action_logits"][g])
        best, second = read.action_logits.topk(2, -1).values.unbind(-1)
        case.check(f"greedy_margin[{g}] ({path})", best - second, rollout["greedy_margin"][g], 6e-4)
        ids = read.action_logits.argmax(-1) + case.first
        assert torch.equal(ids, rollout["greedy_ids"][g])
        assert attention_mask(case.layout, prompt.mask, chosen + 1)[:, 0, -1].tolist() == (
            rollout["attention_mask_forced"][g].bool().tolist()
        )
        for name, temperature in (("t1", 1.0), ("t16", case.facts["temperature"])):
            mine = token_logp(read.action_logits, ids - case.first, temperature).sum(-1)
            case.check(f"greedy_logp_{name}[{g}] ({path})", mine, rollout[f"greedy_logp_{name}"][g], SUMMED)
        case.check("greedy_actions", case.robot(ids), rollout["greedy_actions"][g], 1e-6)
    hook.remove()
    for name, temperature in (("t1", 1.0), ("t16", case.facts["temperature"])):
        mine = read.stop_logits / temperature - policy.vocabulary_logsumexp(read.stop_state, temperature)
        case.check(f"stop_logp_{name} ({path})", mine, rollout[f"stop_logp_{name}"])
    drawn = torch.softmax(read.stop_logits / case.facts["temperature"], -1)
    case.check(f"stop_choice_prob_t16 ({path})", drawn, rollout["stop_choice_prob_t16"])


def same_decision(case, decision, prefix, suffix):
    rollout, terms = case.rollout, decision.terms
    assert (decision.thought.groups - 1).tolist() == rollout[f"{prefix}_chosen_group"].tolist()
    assert (decision.thought.groups * case.group).tolist() == rollout[f"{prefix}_chosen_length"].tolist()
    assert torch.equal(decision.tokens + case.first, rollout[f"{prefix}_ids"])
    assert torch.equal(terms.latent_used, rollout[f"{prefix}_latent_mask"])
    mask = attention_mask(case.layout, case.prompt().mask, decision.thought.groups)
    assert mask[:, 0, -1].tolist() == rollout[f"{prefix}_attention_mask"].bool().tolist()
    case.check(f"{prefix}_logp_{suffix}", terms.action_logp, rollout[f"{prefix}_logp_{suffix}"], SUMMED)
    case.check(f"{prefix}_end_logp_{suffix}", terms.stop_logp, rollout[f"{prefix}_end_logp_{suffix}"])
    case.check(f"{prefix}_value", terms.value, rollout[f"{prefix}_value"])
    robot = case.robot(decision.tokens + case.first)
    case.check(f"{prefix}_actions", robot, rollout[f"{prefix}_actions"], 1e-6)


@pytest.mark.parametrize("extra", [0, 6])
@pytest.mark.parametrize("rule", ["first", "max"])
def test_evaluation(case, rule, extra):
    """Greedy, both stop rules; more padding changes nothing."""
    same_decision(case, case.policy(rule).decide(case.prompt(extra=extra)), f"eval_{rule}", "t1")


def test_sampling(case):
    """The release's draws, dictated; one prompt after the other gives the same as the batch."""
    rollout = case.rollout
    noise = dictated(case, rollout["sample_chosen_group"], rollout["sample_ids"])
    same_decision(case, case.policy().decide(case.prompt(), noise), "sample", "t16")


def replayed(case, kind):
    train = case.train
    thought = Thought(
        latent=train[f"{kind}_old_latents"], groups=train[f"{kind}_chosen_length"] // case.group
    )
    policy = case.policy()
    policy.zero_grad()
    return policy, policy.terms(case.prompt(), thought, train["responses"] - case.first), thought


@pytest.mark.parametrize("kind", ["on", "off"])
def test_training_pass(case, kind):
    policy, terms, thought = replayed(case, kind)
    train = {k.removeprefix(f"{kind}_"): v for k, v in case.train.items() if k.startswith(f"{kind}_")}
    used = train["latent_mask"]
    assert torch.equal(terms.latent_used, used)
    case.check(f"{kind}_action_logits", policy.reading.action_logits, train["action_logits"])
    case.check(f"{kind}_action_logp_t16", terms.action_logp, train["action_logp_t16"], SUMMED)
    case.check(f"{kind}_latents", terms.latent[used], train["latents"][used])
    case.check(f"{kind}_end_logp_t16", terms.stop_logp, train["end_logp_t16"])
    case.check(f"{kind}_value", terms.value, train["value"])
    chosen = (torch.arange(case.batch), thought.groups - 1)
    case.check(f"{kind}_end_logit", policy.reading.stop_logits[chosen], train["end_logit"])
    cold = policy.reading.stop_logits - policy.vocabulary_logsumexp(policy.reading.stop_state, 1.0)
    case.check(f"{kind}_end_logp_t1", cold[chosen], train["end_logp_t1"])


def replayed_update(case):
    policy, new, thought = replayed(case, "off")
    update, knobs = case.update, case.facts["update"]
    count = knobs["n_action"] + 1
    config = LapoConfig(
        clip_low=knobs["clip_low"],
        clip_high=knobs["clip_high"],
        action_weight=knobs["w_action"] * knobs["n_action"] / count,
        stop_weight=knobs["w_end"] / count,
        latent_weight=knobs["w_latent"],
        value_clip=knobs["value_clip"],
    )
    old = PolicyTerms(
        token_logp=update["old_log_prob"].flatten()[:, None],
        stop_logp=update["old_end_log_prob"].flatten(),
        latent=thought.latent,
        latent_used=new.latent_used,
        value=update["old_values"].flatten(),
    )
    weight = decision_weights(update["mask"], "decision").flatten()
    advantage, target = update["advantages"].flatten(), update["returns"].flatten()
    return policy, lapo_loss(config, policy.latent, thought.latent, old, new, advantage, target, weight)


def test_update(case):
    """Loss and its parts, then the gradient of every parameter."""
    policy, loss = replayed_update(case)
    case.check("out_total", loss.total, case.update["out_total"], LOSS)
    names = {
        "action_loss": "action_loss",
        "action_clipfrac": "action_clipped",
        "latent_loss": "latent_loss",
        "latent_clipfrac": "latent_clipped",
        "latent_kl": "latent_kl",
        "end_loss": "stop_loss",
        "value_loss": "value_loss",
        "value_clipfrac": "value_clipped",
    }
    for theirs, ours in names.items():
        case.check(f"out_{theirs}", loss.parts[ours], case.update[f"out_{theirs}"], LOSS)
    loss.total.backward()
    gradients = {k: p.grad for k, p in policy.backbone.net.named_parameters()}
    gradients |= {f"value_head.mlp.{k}": p.grad for k, p in policy.value_head.named_parameters()}
    statistics = json.loads((case.folder / "grad_stats.json").read_text())
    assert {k for k, grad in gradients.items() if grad is not None} == set(statistics["with_grad"])
    for name, figures in statistics["with_grad"].items():
        grad = gradients[name].double()
        assert list(grad.shape) == figures["shape"]
        assert abs(float(grad.norm()) - figures["l2"]) <= GRADIENT * figures["l2"] + 1e-6, name
        assert abs(float(grad.abs().max()) - figures["absmax"]) <= GRADIENT * figures["absmax"] + 1e-6, name
        # a sum of terms of both signs: its error is that of the norm times the root of their number
        assert (
            abs(float(grad.sum()) - figures["sum"]) <= GRADIENT * figures["l2"] * grad.numel() ** 0.5 + 1e-6
        ), name
    for key, theirs in case.update.items():
        if key.startswith("grad:"):
            distance = (gradients[key.removeprefix("grad:")] - theirs).norm() / theirs.norm()
            case.differences[f"{key} (relative)"] = float(distance)
            assert distance < GRADIENT, key
    tokens = {**case.facts["token_ids"], "<action_0>": case.first}
    rows = gradients["model.language_model.embed_tokens.weight"]
    scale = float(rows.norm(dim=1).max())
    for name in ("latent_end", "latent_start", "action_0", "latent_pad"):
        ours, theirs = rows[tokens[f"<{name}>"]], case.update[f"embed_grad_{name}"]
        case.check(
            f"embed_grad_{name}", ours, theirs, GRADIENT * max(float(theirs.norm()), 1e-6 * scale) + 1e-7
        )
