"""FC-CLIP: one frozen convolutional CLIP for panoptic, instance and semantic segmentation with any words.

Paper: Yu et al., "Convolutions Die Hard", NeurIPS 2023, arXiv:2308.02487. Reference implementation:
github.com/bytedance/fc-clip. Same weights give the same function; what differs is deliberate:

- the vocabulary enters after the masks, not before them: `encode` is shared by all questions;
- the class branch runs after the last layer only, unless training;
- intermediate mask logits are computed only where the attention masks read them;
- deformable attention is one weighted row sum instead of a grid sample a level;
- `min_fragment`, `cover_small_masks` and `box_share` are ours, and off for the published heads.
"""

from heads.fcclip.config import FCCLIPConfig
from heads.fcclip.model import FCCLIP, FCCLIPEncoding

__all__ = ["FCCLIP", "FCCLIPConfig", "FCCLIPEncoding"]
