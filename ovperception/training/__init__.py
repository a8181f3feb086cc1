"""Training: one loop for any head, the contrastive recipe of the tiny CLIP, and the recipes by name."""
