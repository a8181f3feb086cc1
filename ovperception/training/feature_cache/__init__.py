"""Features of a frozen backbone, computed once and read ever after.

    export_features(views, backbone, folder)        # once; go on after a kill by calling it again
    cache = open_cache(folder, key=cache_key(views, backbone))
    batches = CachedBatches(cache, order)           # a source of batches, as `LabelledBatches` is
    features = features_of(batch, backbone)         # of a live batch or of a cached one

A cache is a folder of shards (safetensors), each with its checksum beside it, and ``cache.json``, which says
what it was made of: backbone, preprocessing, augmentation, data. Whoever opens it says what is wanted, and a
cache of anything else is an error.
"""

from ovperception.training.feature_cache.batches import CachedBatch, CachedBatches, features_of
from ovperception.training.feature_cache.cache import FeatureCache, open_cache
from ovperception.training.feature_cache.export import ExportSettings, export_features
from ovperception.training.feature_cache.key import CacheKey, cache_key
from ovperception.training.feature_cache.shards import ShardFault

__all__ = [
    "CacheKey",
    "CachedBatch",
    "CachedBatches",
    "ExportSettings",
    "FeatureCache",
    "ShardFault",
    "cache_key",
    "export_features",
    "features_of",
    "open_cache",
]
