"""The jobs: warm-up, reinforcement, evaluation."""
