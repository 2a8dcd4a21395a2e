"""Playing the policy: episodes, and the batches they become."""
