"""LSeg: a text-aligned embedding for every pixel, by a dense prediction transformer.

Paper: Li et al., "Language-driven Semantic Segmentation", ICLR 2022, arXiv:2201.03546; the decoder is DPT's
(Ranftl et al., "Vision Transformers for Dense Prediction", ICCV 2021, arXiv:2103.13413). Reference
implementation: github.com/isl-org/lang-seg. Same weights give the same function.

It comes in two kinds. The official one trained its image trunk, which therefore belongs to the head and is
told apart by the head's digest; the CLIP beside it only reads words. The other one puts the same decoder on
maps of a frozen CLIP. Deliberate deviations:

- words enter after the pixels: `encode` is shared by all questions, and classes and chunks of classes are
  multiplied with the embeddings where they are read;
- similarities are taken in float32, not float16: up to 0.002 in a logit of the official checkpoint;
- prompts are the model card's (the official ones are bare words), and a class may have synonyms, of which the
  best counts;
- a picture of any size is padded to a multiple of 32 and its answer cut back; the official code takes
  multiples of 32 only. The decoder fits what comes from below to the size of the skip connection, where the
  official one doubles it, which is the same for multiples of 32;
- nothing is kept between calls: the official code collects activations in a dictionary of the module;
- the residual unit of the coarsest fusion block, which nothing reads, does not exist.
"""

from heads.lseg.config import LSegConfig, TrunkConfig
from heads.lseg.model import LSeg

__all__ = ["LSeg", "LSegConfig", "TrunkConfig"]
