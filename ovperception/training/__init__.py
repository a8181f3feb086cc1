"""Training: one loop for any head, the contrastive recipe that made the tiny CLIP, and the recipes by name."""
