"""Every knob of the system on one page.  Frozen, validated, standard library only.

Letters in the help: K stop candidates, G latents per group, L = K*G latent slots, C control steps per chunk.
Sections in brackets refer to docs/ALGORITHM.md.
"""

from dataclasses import dataclass, field
from typing import Literal

from lastr1.knobs import positive


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Size of a Qwen3-VL built from scratch; the defaults are the tiny one that runs on a laptop."""

    size: Literal["custom", "2B", "4B", "8B"] = "custom"
    """a public size of Qwen3-VL, which overrides the knobs below, or `custom`"""
    hidden: int = 128
    """width D of the language model"""
    layers: int = 3
    """language-model layers"""
    heads: int = 4
    """query heads"""
    kv_heads: int = 2
    """key/value heads"""
    head_dim: int = 32
    """width of one head"""
    mlp: int = 384
    """width of the gated MLP"""
    vision_hidden: int = 96
    """width of the vision tower"""
    vision_layers: int = 3
    """vision-tower layers"""
    vision_heads: int = 4
    """vision-tower heads"""
    vision_mlp: int = 288
    """width of the vision MLP"""
    patch: int = 16
    """pixels per patch edge"""
    deepstack: tuple[int, ...] = (1,)
    """vision layers whose features are added to the first language layers"""

    def __post_init__(self) -> None:
        positive(self, "hidden", "layers", "heads", "kv_heads", "head_dim", "mlp", "vision_hidden", "patch")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What a decision is: how long it may think, how it stops, how it acts [2, 3, 4]."""

    stop_candidates: int = 4
    """K: the thought may end after each of K groups; 0 is the action-only policy"""
    latents_per_group: int = 2
    """G: latents in one group"""
    chunk: int = 8
    """C: control steps played open loop per decision"""
    temperature: float = 1.6
    """sampling temperature of actions and stop in rollouts (evaluation is greedy)"""
    latent_policy: Literal["gaussian", "deterministic"] = "gaussian"
    """how latents are drawn in rollouts, and their likelihood ratio [4]"""
    latent_noise: float = 0.05
    """standard deviation of the gaussian latent policy, relative to the RMS of the latents"""
    latent_ratio_norm: Literal["sum", "dim", "element"] = "dim"
    """divisor of the gaussian log-ratio: 1, D, or D times the latents used [4.4]"""
    latent_sigma: float = 10.0
    """sigma of the deterministic policy's ratio (Eq. 3)"""
    stop_likelihood: Literal["consistent", "released"] = "consistent"
    """likelihood of the stop: the categorical that was sampled, or the release's full vocabulary [3]"""
    eval_stop: Literal["first", "max", "mode"] = "mode"
    """stop rule at evaluation: first p >= threshold, largest p, or mode of the sampled categorical [3]"""
    stop_threshold: float = 0.99
    """threshold of the `first` rule"""
    schedule: Literal["speculative", "fused", "static", "plain"] = "speculative"
    """how slots share calls of the model while acting; the decision is the same [2.8]"""
    crop: float = 0.9
    """share of the image edge kept by the centre crop (1: none) [2.4]"""
    image: int = 256
    """pixels of the square image that the policy sees"""

    def __post_init__(self) -> None:
        positive(self, "latents_per_group", "chunk", "temperature", "latent_noise", "latent_sigma", "image")
        if self.stop_candidates < 0:
            raise ValueError(f"stop_candidates must be 0 or more, not {self.stop_candidates}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must be in (0, 1], not {self.crop}")

    @property
    def latents(self) -> int:
        """L: latent slots."""
        return self.stop_candidates * self.latents_per_group


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """LoRA: matrices of low rank beside the attention projections, in place of training every weight."""

    rank: int = 0
    """rank of the matrices; 0 trains every weight, and the value head is trained in full either way"""
    alpha: float = 32.0
    """the matrices' product counts alpha / rank times"""
    vision: bool = False
    """adapt the attention of the vision tower as well"""

    def __post_init__(self) -> None:
        positive(self, "alpha")
        if self.rank < 0:
            raise ValueError(f"rank must be 0 or more, not {self.rank}")


EVERY_WEIGHT = AdapterConfig()
"""no adapter"""


@dataclass(frozen=True, kw_only=True)
class LapoConfig:
    """LAPO loss and advantages [5]."""

    clip_low: float = 0.2
    """ratios below 1 - clip_low are clipped"""
    clip_high: float = 0.28
    """ratios above 1 + clip_high are clipped"""
    action_weight: float = 1.0
    """weight of the action surrogate"""
    latent_weight: float = 0.1
    """weight of the latent surrogate"""
    stop_weight: float = 0.1
    """weight of the stop surrogate"""
    value_weight: float = 1.0
    """weight of the value loss"""
    value_clip: float | None = None
    """None: squared error; a number: half the clipped maximum of the release"""
    average: Literal["decision", "episode"] = "decision"
    """mean over all valid decisions, or per episode first (the release)"""
    reward_scale: float = 5.0
    """reward of a success"""
    discount: float = 0.99
    """gamma per decision"""
    trace: float = 0.95
    """lambda of generalised advantage estimation"""
    whiten: bool = True
    """advantages to mean 0 and variance 1 over the valid decisions of a rollout"""
    on_truncation: Literal["bootstrap", "zero"] = "bootstrap"
    """value after the step cap: the critic's, or 0"""
    advantage: Literal["gae", "grpo", "rloo"] = "gae"
    """from the critic; or, without one, from other episodes of the same start (`reinforce.group`) [8.2]"""

    clip_scope: Literal["decision", "token"] = "decision"
    """the ratio of an action that is clipped: of the whole chunk, or of every token by itself [5.3, 8.2]"""

    def __post_init__(self) -> None:
        if self.advantage != "gae" and self.value_weight:
            raise ValueError(f"advantage {self.advantage} has no critic: set value_weight 0")
        if not (0 < self.discount <= 1 and 0 <= self.trace <= 1):
            raise ValueError(f"discount {self.discount} must be in (0, 1] and trace {self.trace} in [0, 1]")
        if not 0 < self.clip_low < 1 or self.clip_high <= 0:
            raise ValueError(f"clip range [1 - {self.clip_low}, 1 + {self.clip_high}] does not contain 1")


@dataclass(frozen=True, kw_only=True)
class ThinkingConfig:
    """What thinking costs in reinforcement, and how long thoughts should be [5.1]."""

    price: float = 0.0
    """of a latent, in successes, taken from the reward of its decision (with a target: at first)"""
    target: float | None = None
    """mean latents per decision, of training episodes, that the price is to bring about (None: it stays)"""
    rate: float = 0.002
    """change of the price per iteration, for every latent that the mean is above the target or below"""

    def __post_init__(self) -> None:
        positive(self, "rate")
        if self.price < 0:
            raise ValueError(f"price must be 0 or more, not {self.price}")

    @property
    def budgeted(self) -> bool:
        """Whether latents may cost anything."""
        return self.price > 0 or self.target is not None


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW in two groups, one clip over both [5.6]."""

    lr: float = 3e-5
    """learning rate of the backbone"""
    value_lr: float = 3e-4
    """learning rate of the value head"""
    grad_clip: float = 10.0
    """largest gradient norm over all parameters"""
    ramp: int = 0
    """optimizer steps over which both rates rise from nothing: Adam's first steps know no scale yet"""
    lr_end: float = 1.0
    """final rates as a share of the peaks (cosine over the iterations of the run)"""
    micro_batch: int = 64
    """decisions per backward pass (memory, not mathematics)"""
    freeze_vision: bool = False
    """leave the vision tower as the warm-up made it (half the work of a small policy)"""
    autocast: bool = False
    """bf16 compute with fp32 master weights and fp32 log-probabilities"""
    checkpointing: bool = False
    """keep no activations inside layers: the backward pass computes them again (a third more work)"""

    def __post_init__(self) -> None:
        positive(self, "lr", "value_lr", "grad_clip", "micro_batch")


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig:
    """The reinforcement job [5.5, 7.2]."""

    iterations: int = 200
    """rollout + update, repeated"""
    episodes: int = 512
    """episodes per iteration"""
    group: int = 1
    """episodes per start, each with other draws (2 or more for `lapo.advantage` grpo and rloo)"""
    skip_uniform_groups: bool = False
    """grpo and rloo: leave out groups whose returns are all equal, whose advantages are 0, so that means are
    over the others (should all be equal, none is left out)"""
    minibatches: int = 4
    """optimizer steps per pass over a rollout"""
    epochs: int = 1
    """passes over a rollout"""
    recompute_old: bool = True
    """recompute the old terms with the kernel of the update; False trusts what acting recorded, which is the
    same to rounding in fp32 [5.7]"""
    value_only_iterations: int = 0
    """first iterations that train the critic alone"""
    train_states: Literal["fresh", "benchmark"] = "fresh"
    """fresh scenes, or the stored ones that evaluation uses (the release; labelled in results)"""
    task_choice: Literal["turns", "failures"] = "turns"
    """fresh scenes: the tasks in turn, or in proportion to how often each has failed of late"""
    checkpoint_every: int = 10
    """iterations between checkpoints"""
    keep_last: int = 2
    """newest checkpoints that stay (one alone leaves nothing to fall back on should it be damaged)"""
    keep_every: int = 0
    """checkpoints of every n-th iteration stay as well (0: none); the best one always does"""
    minutes: float | None = None
    """wall-clock budget; the run ends cleanly when it is spent"""

    def __post_init__(self) -> None:
        positive(self, "iterations", "episodes", "minibatches", "epochs", "checkpoint_every", "keep_last")
        if self.keep_every < 0:
            raise ValueError(f"keep_every must be 0 or more, not {self.keep_every}")
        if self.group < 1 or self.episodes % self.group:
            raise ValueError(f"episodes {self.episodes} is not a multiple of group {self.group}")
        if self.minibatches > self.episodes:
            raise ValueError(f"minibatches {self.minibatches} must not exceed episodes {self.episodes}")


Target = Literal["teacher", "average_pool", "strided_conv", "q_former"]


@dataclass(frozen=True, kw_only=True)
class WarmupConfig:
    """The supervised warm-up [6]."""

    iterations: int = 10_000
    """optimizer steps"""
    batch: int = 64
    """samples per step"""
    lr: float = 1e-5
    """peak learning rate"""
    lr_end: float = 0.1
    """final learning rate as a share of the peak (cosine)"""
    ramp: int = 0
    """steps of linear ramp-up before the cosine"""
    grad_clip: float = 1.0
    """largest gradient norm"""
    cosine_weight: float = 1.0
    """weight of the latent loss (1 - cosine)"""
    stop_weight: float = 0.1
    """weight of the stop losses"""
    action_weight: float = 1.0
    """weight of the action cross-entropy"""
    stop_candidate_weight: float = 1.0
    """inside the stop loss: categorical over the K candidates"""
    stop_vocab_weight: float = 1.0
    """inside the stop loss: full-vocabulary cross-entropy at the drawn candidate"""
    latent_passes: int = 2
    """passes over a lesson: the last reads actions and stops, after what the one before it predicted; 1 reads
    them after the targets, L + 1 after exactly what the policy thinks by itself [6.4]"""
    target: Target = "teacher"
    """what a latent points at: a teacher's view of the frame, or the base's image tokens compressed [8]"""
    teacher: str = "thumbnail"
    """`thumbnail`, `mobilenet`, or `dinov3:` and a directory or a name on the hub"""
    channels: Literal["fixed", "per_image"] = "fixed"
    """the teacher's loudest D channels: one set for the run, or of every frame anew [6.3]"""
    cache: str | None = None
    """folder in which views of frames are kept, to share among runs (None: `targets` in the run's own)"""
    target_stride: int = 8
    """control steps between the future frames that latents are taught"""
    center_targets: bool = False
    """subtract the data set's mean target before the cosine"""
    frame_stride: int = 1
    """keep every n-th frame of a demonstration as a decision point (divides the memory of large sets)"""
    image_augment: Literal["random_crop", "none"] = "random_crop"
    """window of the crop in training"""
    action_smoothing: float = 0.0
    """spread of the action labels over neighbouring bins, in bins (0: one-hot); grippers stay one-hot"""
    freeze_vision: bool = False
    """leave the vision tower as it is"""
    autocast: bool = False
    """bf16 compute with fp32 master weights"""
    checkpointing: bool = False
    """keep no activations inside layers: the backward pass computes them again (a third more work, and the
    prompt is read twice)"""
    checkpoint_every: int = 1000
    """iterations between checkpoints"""
    report_every: int = 2000
    """iterations between reports of what self-fed thoughts lose against the targets (and one at the end)"""

    def __post_init__(self) -> None:
        positive(self, "iterations", "batch", "lr", "grad_clip", "target_stride", "checkpoint_every")
        positive(self, "latent_passes", "report_every")


@dataclass(frozen=True, kw_only=True)
class GroundingConfig:
    """Seeing and pointing, for a base made from scratch (the embedded world only)."""

    iterations: int = 0
    """optimizer steps before the warm-up (0: none)"""
    batch: int = 64
    """pictures per step"""
    lr: float = 1.5e-3
    """peak learning rate"""
    episodes: int = 8000
    """expert episodes that the pictures are taken from"""

    def __post_init__(self) -> None:
        positive(self, "batch", "lr", "episodes")


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Which simulator, and how it is run."""

    suite: str = "tabletop"
    """tabletop, tabletop_base, tabletop_dual, tabletop_dual_base, libero_spatial, libero_object, ..."""
    tasks: tuple[int, ...] | None = None
    """indices of the tasks to use (None: all of the suite)"""
    image: int = 128
    """pixels of the rendered camera image"""
    slots: int = 32
    """environments played side by side"""
    workers: int = 1
    """simulator processes (0: inside the main process; -1: one per core, at most one per slot)"""
    deadline: float = 120.0
    """seconds that a simulator process may take for one call before it counts as hung and is replaced"""
    restarts: int = 20
    """losses in a row, with no episode that ends in between, that a run survives"""
    render: Literal["full", "no_reflections", "coarse"] = "full"
    """LIBERO: `no_reflections`, or `coarse`, which also drops multisampling, draw two and three times as fast
    and change pixels (recorded in results)"""
    released_init_patch: bool = False
    """reproduce the release's edit of one initial state of libero_spatial (recorded in results)"""

    def __post_init__(self) -> None:
        positive(self, "image", "slots", "deadline")
        if self.restarts < 0:
            raise ValueError(f"restarts must be 0 or more, not {self.restarts}")
        if self.workers < -1:
            raise ValueError(f"workers {self.workers}: a number of processes, or -1 for one per core")


@dataclass(frozen=True, kw_only=True)
class ChaosConfig:
    """Faults planted in simulators, to see that a run survives them; chances per call of a simulator."""

    kill: float = 0.0
    """its process dies"""
    hang: float = 0.0
    """its process never answers (see `env.deadline`)"""
    corrupt: float = 0.0
    """it answers what cannot be: numbers that are not finite, wrong shapes, missing cameras, ..."""
    slow: float = 0.0
    """it answers `delay` seconds late"""
    delay: float = 1.0
    """seconds"""
    seed: int = 0
    """of the faults alone: what is played does not depend on it"""

    def __post_init__(self) -> None:
        chances = (self.kill, self.hang, self.corrupt, self.slow)
        if min(chances) < 0 or sum(chances) > 1 or self.delay < 0:
            raise ValueError(
                f"chaos: chances {chances} must be in [0, 1], also together; delay {self.delay} 0 or more"
            )


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Demonstrations from the scripted expert."""

    episodes: int = 1
    """successful demonstrations per task (a recording's tasks with the same words count as one)"""
    noise: float = 0.0
    """standard deviation of the moves of an unrecorded, disturbed beginning (0: none)"""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluation [7.1]."""

    episodes: int | None = None
    """episodes in all (None: every stored initial state of every task once)"""
    states: Literal["stored", "fresh"] = "stored"
    """stored initial states in fixed order, or fresh scenes from `seed`"""
    videos: int = 0
    """episodes to film"""
    caps: tuple[int, ...] = ()
    """play every start once under each of these, ascending: thoughts end after at most so many groups, and
    what lies beyond is not computed (none: once, without a cap)"""
    both_rules: bool = True
    """of policies with the `consistent` stop, say how long thoughts are by the rules `first` and `mode` [3];
    with at most 8 episodes at a time this costs the early exits of `first`"""

    def __post_init__(self) -> None:
        if list(self.caps) != sorted(set(self.caps)) or min(self.caps, default=1) < 1:
            raise ValueError(f"evaluate.caps {self.caps} must rise from 1 or more")


@dataclass(frozen=True, kw_only=True)
class InteractiveConfig:
    """Reinforcement with human interventions [9]; what is trained says `adapter` (the paper: rank 32)."""

    human: Literal["scripted", "keyboard", "spacemouse", "gamepad", "none"] = "scripted"
    """who may take over: a script (embedded world), a person through a device, or nobody"""
    patience: int = 24
    """scripted: control steps that the policy may waste before it is helped"""
    help_steps: int = 16
    """scripted: control steps that the help lasts"""
    demonstrations: bool = True
    """clone `collect.episodes` demonstrations per task as well (`--demos`, or the scripted expert's)"""
    real_time: bool = False
    """play control steps at the robot's rate (a person beside a simulated robot)"""
    transitions: int = 4000
    """budget: decisions and corrections played"""
    start_after: int = 500
    """transitions before the first update"""
    updates_per_transition: float = 0.0
    """simulated robots: actor and learner wait for each other to keep this ratio; 0: neither ever waits, and
    the run is over with the last transition"""
    batch: int = 32
    """transitions from each stream (the policy's own, interventions) in an update"""
    lr: float = 1e-5
    """learning rate of the policy"""
    critic_lr: float = 3e-4
    """learning rate of the critics"""
    grad_clip: float = 1.0
    """largest gradient norm, of policy and critics each"""
    cloning_weight: float = 1.0
    """weight of imitating interventions and demonstrations"""
    cloning_smoothing: float = 0.0
    """spread of their labels over neighbouring bins, in bins, as `warmup.action_smoothing`"""
    guided_weight: float = 0.5
    """weight of improvement by the critics"""
    guided_draws: int = 4
    """chunks drawn per transition and compared by the critics"""
    critic_first: int = 0
    """first updates that train the critics alone"""
    critics: int = 2
    """networks in the ensemble; the lowest counts"""
    critic_hidden: int = 512
    """width of their two layers"""
    critic_updates: int = 2
    """updates of the critics per update of the policy"""
    discount: float = 0.98
    """gamma per whole chunk; a chunk cut short discounts by its share"""
    target_rate: float = 0.005
    """tau: share of the way that target critics go per update of the critics"""
    success_reward: float = 10.0
    """of a success that the operator confirmed"""
    step_reward: float = -0.05
    """of every control step"""
    publish_every: int = 10
    """updates between weights for the actor"""
    checkpoint_every: int = 200
    """updates between checkpoints"""

    def __post_init__(self) -> None:
        positive(self, "patience", "help_steps", "transitions", "batch", "lr", "critic_lr", "grad_clip")
        positive(self, "critics", "critic_hidden", "critic_updates", "publish_every", "checkpoint_every")
        if self.guided_draws < 2:
            raise ValueError(f"guided_draws {self.guided_draws}: at least 2, to be compared with each other")
        if not (0 < self.discount <= 1 and 0 < self.target_rate <= 1):
            raise ValueError(f"discount {self.discount} and target_rate {self.target_rate} must be in (0, 1]")
        if min(self.updates_per_transition, self.start_after, self.critic_first) < 0:
            raise ValueError("updates_per_transition, start_after and critic_first must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """`train` over several processes or machines, on Ray (docs/CLUSTER.md)."""

    collectors: int = 0
    """processes that play, each with the policy and `env.slots` environments (0: no cluster)"""
    learners: int = 1
    """processes that learn together, each with its part of the weights (on GPUs: one process per GPU)"""
    address: str | None = None
    """HOST:PORT of a Ray that runs (None: one of this run's own, on this machine)"""
    collector_cpus: float = 1.0
    """cores that a collector asks Ray for: its simulators' as well"""
    collector_gpus: float = 0.0
    """GPUs, or a share of one, that a collector asks for"""
    learner_cpus: float = 1.0
    """cores that a learner asks for"""
    learner_gpus: float = 0.0
    """GPUs that a learner asks for; with less than 1, collectors may share its GPU"""
    placement: Literal["split", "colocated"] = "split"
    """collectors wherever there is room, spread over machines; or as many beside every learner, on its GPU"""
    staleness: int = 0
    """updates by which an episode's weights may be behind: 0 plays and learns in turn, 1 or more at once"""
    restarts: int = 20
    """collectors, and learners, that may be lost in a run"""

    def __post_init__(self) -> None:
        positive(self, "learners")
        resources = (self.collector_cpus, self.collector_gpus, self.learner_cpus, self.learner_gpus)
        if min(self.collectors, self.staleness, self.restarts, *resources) < 0:
            raise ValueError("cluster: collectors, staleness, restarts, cpus and gpus must be 0 or more")
        if self.placement == "colocated" and self.collectors % self.learners:
            raise ValueError(
                f"cluster: collectors {self.collectors} beside {self.learners} learners: use a multiple"
            )


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """The machines that `lastr1 plan` reckons with."""

    gpus: int = 8
    """GPUs"""
    memory_gb: float = 80.0
    """1e9 bytes of each"""
    tflops: float = 300.0
    """bf16 operations that one does in practice, 1e12 per second (H100: a third of what its sheet says)"""
    bandwidth: float = 2.5
    """memory that one reads, 1e12 bytes per second"""
    cores: int = 64
    """cores for simulators, of all machines together"""
    core_steps: float = 19.0
    """control steps per second of one core (LIBERO drawn by a processor, docs/LOG.md)"""
    episode_steps: float = 150.0
    """control steps of a mean episode"""

    def __post_init__(self) -> None:
        positive(self, "gpus", "memory_gb", "tflops", "bandwidth", "cores", "core_steps", "episode_steps")


HealthLevel = Literal["note", "warn", "stop"]
HealthSign = Literal[
    "no_success", "no_advantage", "no_gradient", "still_ratios", "low_entropy", "high_entropy", "high_kl",
    "same_latents", "flat_latents", "blind_value", "fixed_stop", "lost_environments", "mismatch",
    "forgotten_task",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HealthConfig:
    """What counts as a dead run, and what is done about it; algo/health.py describes the signs."""

    off: tuple[HealthSign, ...] = ()
    """signs that are not looked for"""
    note: tuple[HealthSign, ...] = ("blind_value", "fixed_stop", "forgotten_task")
    """signs that are mentioned; what is in none of the three lists is warned of"""
    stop: tuple[HealthSign, ...] = ("no_advantage", "no_gradient")
    """signs that end the run, with a checkpoint, when they last for two windows; warned of before"""
    window: int = 10
    """iterations that a sign must last (its median over them counts)"""
    entropy_low: float = 0.2
    """share of the first window's action entropy below which it has collapsed"""
    entropy_rise: float = 1.0
    """nats per token above the first window's action entropy at which it explodes"""
    kl: float = 0.15
    """nats per iteration at which the action policy moves too far"""
    latent_share: float = 0.1
    """share of the first window's spread or rank, below which latents have collapsed"""
    explained: float = 0.01
    """explained variance that the value must reach once in a window"""
    lost: float = 0.1
    """share of episodes that lose their simulator"""
    mismatch: float = 0.2
    """nats between recorded and recomputed action log-probability: as wide as the clip range"""

    def __post_init__(self) -> None:
        positive(self, "window")
        every = (*self.off, *self.note, *self.stop)
        twice = sorted({sign for sign in every if every.count(sign) > 1})
        if twice:
            raise ValueError(f"health: {twice[0]} stands in more than one of off, note and stop")


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """What every arm may be asked to do; enforced on the robot's side, in the frame of the arm's base."""

    low: tuple[float, float, float] = (0.28, -0.40, 0.02)
    """corner of the workspace box of the tool: x, y, z (m)"""
    high: tuple[float, float, float] = (0.70, 0.40, 0.60)
    """opposite corner (m)"""
    speed: float = 0.5
    """m/s"""
    acceleration: float = 5.0
    """m/s^2"""
    jerk: float = 100.0
    """m/s^3"""
    turn_speed: float = 1.5
    """rad/s"""
    turn_acceleration: float = 15.0
    """rad/s^2"""
    turn_jerk: float = 300.0
    """rad/s^3"""
    tilt: float = 1.2
    """rad that a tool may be turned from pointing straight down, fingers across"""
    joint_speed: float = 2.0
    """rad/s; what slows the arm where it is nearly stretched"""
    joint_margin: float = 0.1
    """rad that joints keep from their mechanical limits"""
    lag: float = 0.10
    """m that a tool may be behind what it was told: more means that the arm is blocked, or too slow"""
    apart: float = 0.15
    """m that the tools of two arms keep from each other"""
    gripper_pause: float = 0.5
    """seconds that a gripper keeps a target before it takes another"""

    def __post_init__(self) -> None:
        positive(self, "speed", "acceleration", "jerk", "turn_speed", "turn_acceleration", "turn_jerk")
        positive(self, "tilt", "joint_speed", "lag")
        if min(self.joint_margin, self.apart, self.gripper_pause) < 0:
            raise ValueError("limits: joint_margin, apart and gripper_pause must be 0 or more")
        if any(a >= b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"limits: low {self.low} must lie below high {self.high} on every axis")


@dataclass(frozen=True, kw_only=True)
class RobotConfig:
    """The robot that `lastr1 drive` moves: one or two seven-joint arms with grippers, and cameras."""

    hosts: tuple[str, ...] = ("172.16.0.2",)
    """address of every arm's controller, the left one first; there are as many arms as hosts"""
    bases: tuple[tuple[float, float, float, float], ...] = ((0.0, 0.0, 0.0, 0.0),)
    """where every arm's base stands in a frame of your choice: x, y, z (m), yaw (rad)"""
    cameras: tuple[str, ...] = ("front=/dev/video0",)
    """NAME=SOURCE of every camera: a device, a stream's address or a video file"""
    image: tuple[int, int] = (256, 256)
    """height and width of every image, pixels: the largest such window in the middle of it, resized"""
    stale: float = 0.3
    """seconds after which a camera without a new frame counts as lost"""
    rate: float = 20.0
    """control steps per second"""
    realtime: bool = True
    """Franka: refuse to run without real-time priorities (a kernel with PREEMPT_RT)"""
    gripper_speed: float = 0.1
    """m/s"""
    gripper_force: float = 20.0
    """N that a closed gripper holds with"""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """what the robot's side grants, whatever a policy asks for"""

    def __post_init__(self) -> None:
        positive(self, "rate", "stale", "gripper_speed", "gripper_force")
        if len(self.hosts) not in (1, 2) or len(self.hosts) != len(self.bases):
            raise ValueError(f"robot: 1 or 2 hosts, each with its base, not {self.hosts} and {self.bases}")
        if any(not name or not source for name, _, source in (c.partition("=") for c in self.cameras)):
            raise ValueError(f"robot: cameras are NAME=SOURCE, not {self.cameras}")


@dataclass(frozen=True, kw_only=True)
class DriveConfig:
    """How `lastr1 drive` plays what a policy decides."""

    instruction: str = ""
    """what the policy is told to do"""
    episodes: int = 1
    """episodes, one after the other"""
    seconds: float = 60.0
    """longest episode"""
    play: int = 8
    """control steps of a chunk that are played before the next chunk takes over (at most its length C)"""
    ahead: int = 0
    """control steps before that at which the next chunk is asked for while the arm keeps moving (real-time
    chunking); 0: the arm holds while the policy thinks"""
    blend: Literal["none", "linear", "soft"] = "none"
    """where an old chunk and its successor overlap: take the new one, or pass over linearly, or by the soft
    mask of real-time chunking"""
    deadline: float = 0.5
    """seconds that a decision may take before it is given up"""
    patience: float = 10.0
    """seconds without a server or a camera, holding, after which the episode ends"""
    record: bool = False
    """write the episodes to --out as a LeRobotDataset v3"""

    def __post_init__(self) -> None:
        positive(self, "episodes", "seconds", "play", "deadline", "patience")
        if not 0 <= self.ahead < self.play:
            raise ValueError(f"drive: ahead {self.ahead} must be 0 or more and below play {self.play}")
        if self.blend != "none" and not self.ahead:
            raise ValueError(f"drive: blend {self.blend} needs chunks that overlap: set ahead to 1 or more")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """The policy server, and what its load test sends."""

    host: str = "127.0.0.1"
    """address to listen on; any other than this machine's own asks for an API key"""
    port: int = 8000
    """0: any free one"""
    deadline_ms: float = 1000.0
    """milliseconds that a request without a deadline of its own should take: thoughts are cut to meet them"""
    max_batch: int = 32
    """requests decided together"""
    max_groups: int | None = None
    """groups after which every thought ends at the latest, whatever time there is (None: as it likes)"""
    max_clients: int = 64
    """connections at a time"""
    max_frame_mb: float = 16.0
    """largest frame of a client"""
    max_rate: float = 100.0
    """requests per second of one client"""
    api_key_file: str | None = None
    """file with the key that clients have to show (None: the environment's LASTR1_API_KEY, if set)"""
    drain_s: float = 10.0
    """seconds that requests under way have after SIGTERM"""
    load_clients: int = 32
    """loadtest: clients at a time"""
    load_requests: int = 50
    """loadtest: requests of each"""

    def __post_init__(self) -> None:
        positive(self, "deadline_ms", "max_batch", "max_clients", "max_frame_mb", "max_rate", "drain_s")
        positive(self, "load_clients", "load_requests")
        if self.max_groups is not None:
            positive(self, "max_groups")
        if self.max_rate < 1:
            raise ValueError(f"max_rate must be 1 or more, not {self.max_rate}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment."""

    name: str
    """recipe it came from"""
    seed: int = 0
    """every random draw of a run follows from it"""
    device: str = "auto"
    """where the policy computes: `cpu`, `cuda`, `cuda:1`, ..., or `auto` (a GPU if there is one)"""
    threads: int = 2
    """CPU threads for torch, shared by the processes"""
    processes: int = 1
    """policy processes that play and learn side by side (for a small policy 2 of 1 thread beat 1 of 2)"""
    base: str = "builtin"
    """what the warm-up starts from: `builtin`, `scratch` or a checkpoint directory"""
    env: EnvConfig = field(default_factory=EnvConfig)
    chaos: ChaosConfig = field(default_factory=ChaosConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    grounding: GroundingConfig = field(default_factory=GroundingConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    lapo: LapoConfig = field(default_factory=LapoConfig)
    thinking: ThinkingConfig = field(default_factory=ThinkingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    reinforce: ReinforceConfig = field(default_factory=ReinforceConfig)
    interactive: InteractiveConfig = field(default_factory=InteractiveConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    robot: RobotConfig = field(default_factory=RobotConfig)
    drive: DriveConfig = field(default_factory=DriveConfig)

    def __post_init__(self) -> None:
        if self.lapo.advantage != "gae" and self.reinforce.group < 2:
            raise ValueError(
                f"lapo.advantage {self.lapo.advantage} compares episodes of one start: "
                f"set reinforce.group to 2 or more, not {self.reinforce.group}"
            )
        if self.reinforce.skip_uniform_groups and self.lapo.advantage == "gae":
            raise ValueError("reinforce.skip_uniform_groups is for lapo.advantage grpo and rloo")
        self._check_thinking()
        if self.env.workers == 0 and (self.chaos.kill or self.chaos.hang):
            raise ValueError(
                "chaos.kill and chaos.hang end a simulator's process: set env.workers to 1 or more"
            )

    def _check_thinking(self) -> None:
        target, group = self.thinking.target, self.policy.latents_per_group
        if self.thinking.budgeted and self.lapo.advantage == "grpo":
            raise ValueError(
                "thinking: grpo divides by a group's deviation, so where all succeed or all fail any price "
                "weighs the same: set lapo.advantage to rloo or gae"
            )
        if target is not None and not group < target < self.policy.latents:
            raise ValueError(
                f"thinking.target {target} must lie between {group} and {self.policy.latents} latents, the "
                f"shortest and the longest thought"
            )
