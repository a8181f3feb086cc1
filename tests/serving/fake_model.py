"""A model without weights: quick, repeatable, and it waits where a test wants it to."""

import threading
import zlib
from types import SimpleNamespace

import numpy as np

from ovperception.errors import InvalidImage, InvalidRegions, Unsupported
from ovperception.head_choice import without_masks
from ovperception.images import Geometry, load_image
from ovperception.rle import RLE
from ovperception.structures import Detections, PanopticMap, Segment, SemanticMap
from ovperception.vocabulary import Vocabulary

DIM = 8
POISON = 13  # an image whose first pixel is this red fails to encode


def _share(text):
    """A number from 0 to 1 that a text always has."""
    return zlib.crc32(text.encode()) % 1000 / 1000


class FakeScene:
    """Answers that depend on the pixels and on the words."""

    def __init__(self, image, nbytes):
        self.image = image
        self.nbytes = nbytes
        self.size = image.shape[:2]
        self.timing = {"decode": 0.0, "preprocess": 1.0, "backbone": 2.0, "head": 3.0}

    def draft_detections(self, words, **options):
        found = self.detect(words, **options)
        return lambda: found

    def detect(
        self,
        words,
        *,
        boxes=None,
        score_threshold=None,
        max_detections=None,
        nms_iou_threshold=None,
        masks=True,
    ):
        words = Vocabulary.from_words(words)
        height, width = self.size
        if boxes is not None:
            return self._name(words, boxes)
        rows = []
        for index, entry in enumerate(words.classes):
            score = np.float32(0.5 * _share(entry.name) + 0.5 * self.image.mean() / 255)
            least = entry.score_threshold if entry.score_threshold is not None else score_threshold or 0
            if score >= least:
                x, y = int(_share(entry.name) * (width - 2)), int(_share(entry.name[::-1]) * (height - 2))
                rows.append((score, index, (x, y, min(x + 9.5, width), min(y + 7.25, height))))
        rows = sorted(rows, reverse=True)[: max_detections or 100]
        return Detections(
            size=self.size,
            classes=words.names,
            boxes=np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
            scores=np.array([row[0] for row in rows], np.float32),
            class_ids=np.array([row[1] for row in rows], np.int64),
            masks=tuple(self._mask(row[2]) for row in rows) if masks else None,
        )

    def _name(self, words, boxes):
        """Every box is of the first class."""
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        if len(boxes) and not (boxes[:, 2:] > boxes[:, :2]).all():
            raise InvalidRegions("A box has no area", field="boxes[0]")
        return Detections(
            size=self.size,
            classes=words.names,
            boxes=boxes,
            scores=np.full(len(boxes), 0.5, np.float32),
            class_ids=np.zeros(len(boxes), np.int64),
        )

    def _mask(self, box):
        mask = np.zeros(self.size, bool)
        mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
        return RLE.encode(mask)

    def semantic(self, words, *, score_threshold=None):
        words = Vocabulary.from_words(words)
        labels = self.image[..., 0].astype(np.int32) % (len(words) + 1) - 1
        return SemanticMap(
            classes=words.names, labels=labels, scores=(self.image[..., 1] / 255).astype(np.float32)
        )

    def panoptic(self, words, *, score_threshold=None):
        words = Vocabulary.from_words(words)
        ids = np.zeros(self.size, np.int32)
        ids[: self.size[0] // 2] = 7
        ids[self.size[0] // 2 :] = 70_000  # needs the third byte
        segments = tuple(
            Segment(id=i, class_id=c, score=0.1 + c, area=int((ids == i).sum()), is_thing=words.is_thing[c])
            for i, c in ((7, 0), (70_000, len(words) - 1))
        )
        return PanopticMap(classes=words.names, ids=ids, segments=segments)

    def heatmap(self, text):
        return (self.image[..., 2] / 255 * _share(text)).astype(np.float32)

    def embed_regions(self, boxes):
        return np.asarray(boxes, np.float32).reshape(-1, 4)[:, [0, 1, 2, 3, 0, 1, 2, 3]]


class FakePreprocessing:
    def geometry(self, size):
        return Geometry(original=size, resized=size, padded=tuple(-(-side // 32) * 32 for side in size))


class FakePicture:
    def __init__(self, image, geometry):
        self.image, self.geometry = image, geometry


class FakeLook:
    def __init__(self, image, nbytes):
        self.image, self.nbytes = image, nbytes

    def alone(self):
        return self


class FakeModel:
    """See above.

    Args:
        name: its name.
        scene_bytes: what each scene claims to hold, and each look.
        backbone: models with the same one share it; none: a backbone of its own.
    """

    version = "1"
    digest = "0" * 64
    tasks = frozenset({"detect", "semantic", "panoptic"})
    spec = SimpleNamespace(name="fake", embed_dim=DIM)

    def __init__(self, name="fake", *, scene_bytes=1000, backbone=""):
        self.name = name
        self.text_counts = {"memory": 5, "disk": 3, "missing": 2}
        self.scene_bytes = scene_bytes
        self.backbone = backbone
        self.lender = None
        self.takes_boxes = True
        self.makes_masks = True
        self.seen = 0  # images its head has seen
        self.preprocessing = FakePreprocessing()
        self.go = threading.Event()
        self.go.set()
        self.busy = threading.Event()
        self.batches = []
        self.threads = set()

    def hold(self):
        """Make the next encoding wait until `release`."""
        self.go.clear()
        self.busy.clear()

    def release(self):
        self.go.set()

    @property
    def trunk(self):
        return self.backbone or self.name

    def head_for(self, task, *, given_boxes=False, need_masks=False):
        if need_masks and not self.makes_masks:
            raise without_masks(self.name, self.tasks)
        if given_boxes and not self.takes_boxes:
            raise Unsupported("No head classifies given boxes", field="boxes")
        return self

    def stand_on(self, other):
        self.lender = other

    def encode(self, image):
        return self.encode_batch([image])[0]

    def encode_batch(self, images):
        return self.scenes(self.look([self.prepare(image) for image in images]))

    def prepare(self, image, *, presented=None):
        image = load_image(image)
        return FakePicture(image, self.preprocessing.geometry(presented or image.shape[:2]))

    def look(self, pictures):
        images = [picture.image for picture in pictures]
        self.busy.set()
        assert self.go.wait(20)
        self.batches.append([image.shape for image in images])
        self.threads.add(threading.get_ident())
        if any(image[0, 0, 0] == POISON for image in images):
            raise InvalidImage("poison")
        return [FakeLook(image, self.scene_bytes) for image in images]

    def scenes(self, looks):
        self.seen += len(looks)
        return [FakeScene(look.image, self.scene_bytes) for look in looks]

    def learn(self, vocabulary):
        return None

    def embed_text(self, texts):
        return np.array([[_share(f"{text}{i}") for i in range(DIM)] for text in texts], np.float32)

    def embed_image(self, image):
        assert image.flags.writeable  # as torch wants it
        return np.full(DIM, load_image(image).mean(), np.float32)
