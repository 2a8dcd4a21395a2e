"""Vision-language-action policies that think in latents before they act, improved by reinforcement."""

__version__ = "0.1.0"
