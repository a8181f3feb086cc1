"""Which words a protocol asks, and what the answers' classes count as."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eval.metrics import Category
from eval.protocols import AP, EvaluationProtocol, FewShot, groups_of
from eval.running.job import judged_classes
from ovperception.datasets.categories import Classes, builtin_classes
from ovperception.datasets.pascal import voc_20b_of_context
from ovperception.datasets.samples import Dataset, Sample
from ovperception.datasets.scene_sets import scenes_classes
from ovperception.datasets.vocabularies.files import Part
from ovperception.vocabulary import Vocabulary, VocabularyClass, builtin_names

__all__ = ["OTHERS", "Question", "judged_rows", "question_of"]

OTHERS = "others"
"""The word that LSeg's zero-shot evaluation asks beside the class of an episode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, and how answers are counted.

    Attributes:
        vocabulary: K' asked classes, with templates.
        judged: (K',) index into `categories` of each asked class; None where its answers are left out.
        categories: the K judged classes, each in at most one group.
        groups: name of each part -> ids of its categories.
        labels: (dataset's classes,) index into `categories` of each class of the truth, or None.
    """

    vocabulary: Vocabulary
    judged: tuple[int | None, ...]
    categories: tuple[Category, ...]
    groups: dict[Part, tuple[int, ...]]
    labels: tuple[int | None, ...]

    def episode(self, sample: Sample) -> Vocabulary:
        """Of a fold: the class a sample is about, and everything else."""
        assert sample.asked is not None
        words = self.vocabulary.classes[sample.asked[0]]
        return replace(self.vocabulary, classes=(words, VocabularyClass(name=OTHERS)))


def question_of(protocol: EvaluationProtocol, dataset: Dataset) -> Question:
    """The question of a protocol about a data set.

    Raises:
        UnknownVocabulary: the protocol's groups are not those of its vocabulary.
    """
    classes = judged_classes(protocol, dataset)
    named = protocol.vocabulary == "scenes" or protocol.vocabulary in builtin_names()
    parts = _parts(protocol, classes) if named else {}
    asked, judged = _asked(protocol, classes.vocabulary, parts)
    by_part = {i: part for part, rows in parts.items() if part not in ("things", "stuff") for i in rows}
    kept = judged_rows(protocol, classes.vocabulary, named)
    groups = {
        part: tuple(classes.category_ids[i] for i in rows if i in set(kept)) for part, rows in parts.items()
    }
    position = {old: new for new, old in enumerate(kept)}
    index = classes.index
    labels = [
        position.get(i) if isinstance(protocol.metric, FewShot) else position.get(index.get(number, -1))
        for i, number in enumerate(dataset.category_ids)
    ]
    templates = Vocabulary.from_words(asked, templates=protocol.templates or None)
    return Question(
        vocabulary=templates,
        judged=tuple(None if i is None else position.get(i) for i in judged),
        categories=tuple(
            Category(
                id=classes.category_ids[i],
                name=classes.vocabulary.names[i],
                is_thing=classes.vocabulary.is_thing[i],
                group=by_part.get(i, ""),
            )
            for i in kept
        ),
        groups=groups,
        labels=tuple(labels),
    )


def _parts(protocol: EvaluationProtocol, classes: Classes) -> dict[Part, tuple[int, ...]]:
    """Rows of each group; drawn scenes may have some of the words alone."""
    parts = groups_of(protocol)
    if protocol.vocabulary != "scenes":
        return parts
    numbers, index = scenes_classes().category_ids, classes.index
    return {
        part: tuple(index[numbers[i]] for i in rows if numbers[i] in index) for part, rows in parts.items()
    }


def _asked(
    protocol: EvaluationProtocol, words: Vocabulary, parts: dict[Part, tuple[int, ...]]
) -> tuple[Vocabulary, tuple[int | None, ...]]:
    if protocol.asked is not None:  # names of a wider vocabulary; those that are no class count as background
        return builtin_classes(protocol.asked).vocabulary, voc_20b_of_context()
    if protocol.asked_part is None:
        return words, tuple(range(len(words)))
    chosen = parts[protocol.asked_part]
    return replace(words, classes=tuple(words.classes[i] for i in chosen)), tuple(chosen)


def judged_rows(protocol: EvaluationProtocol, words: Vocabulary, named: bool) -> tuple[int, ...]:
    """The classes that count: of detection things, unless a file of one's own says what is annotated."""
    everything = tuple(range(len(words)))
    if not named or not isinstance(protocol.metric, AP):
        return everything
    return tuple(i for i in everything if words.is_thing[i])
