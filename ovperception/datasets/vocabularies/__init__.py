"""Class lists of the data sets the field evaluates on."""

from ovperception.datasets.vocabularies.files import (
    ClassEntry,
    VocabularyFile,
    load_table,
    load_vocabulary_file,
    names,
    parse_vocabulary,
    part_of,
)

__all__ = [
    "ClassEntry",
    "VocabularyFile",
    "load_table",
    "load_vocabulary_file",
    "names",
    "parse_vocabulary",
    "part_of",
]
