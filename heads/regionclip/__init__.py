"""RegionCLIP: detection by the region features of a frozen CLIP, with any words.

Paper: Zhong et al., "RegionCLIP: Region-based Language-Image Pretraining", CVPR 2022, arXiv:2112.09106.
Reference implementation: github.com/microsoft/RegionCLIP. Same weights give the same function; what differs
is deliberate:

- every image is encoded as if it were alone. The official code pads a batch to its largest image after
  normalisation and lets the padding leak into the features of the smaller ones, which is why it evaluates
  one image at a time; `Model.encode_batch` never pads to the size of another image, so batch > 1 gives what
  batch 1 gives;
- the attention pool computes the one token that is read, for all regions of all images in one batch;
- the words enter after the regions: `encode` is shared by all questions;
- the published score, sqrt(probability * raw objectness logit), exceeds 1 and drops every proposal with a
  negative logit. It is kept as ``objectness="sqrt_raw"``, which the presets of the published configurations
  set; the default is the geometric mean with the objectness as a probability;
- a word is asked as it is written; the official code drops commas and more first (`official_name`);
- masks are made once a box, however many classes it is reported with;
- the background has no row that a checkpoint could overwrite: it is a logit of exactly 0.
"""

from heads.regionclip.config import RegionCLIPConfig
from heads.regionclip.model import RegionCLIP
from heads.regionclip.presets import PRESETS, Preset
from heads.regionclip.words import official_name

__all__ = ["PRESETS", "Preset", "RegionCLIP", "RegionCLIPConfig", "official_name"]
