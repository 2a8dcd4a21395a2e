"""Real robots: the server of a policy, the robot's side with its limits, learning beside a person."""

from dataclasses import dataclass, field
from typing import Literal

from lastr1.knobs import positive


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
