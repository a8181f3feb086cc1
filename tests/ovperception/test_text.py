"""Classifiers and their cache: a word is encoded once, whatever happens to the disk."""

import logging
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ovperception.errors import InvalidParameter
from ovperception.text import TextClassifier, TextEncoder
from ovperception.text_cache import EmbeddingCache
from ovperception.vocabulary import Vocabulary, VocabularyClass


class Tower:
    """Counts what it encodes; a prompt's embedding is a function of the prompt."""

    def __init__(self, digest="tower", dim=16):
        self.spec = SimpleNamespace(text_digest=digest, embed_dim=dim)
        self.prompts = []

    def embed_text(self, prompts):
        self.prompts += prompts
        rows = [np.random.default_rng(list(p.encode())).normal(size=self.spec.embed_dim) for p in prompts]
        return torch.tensor(np.stack(rows), dtype=torch.float32) * 3


def encoder(folder=None, *, tower=None, **options):
    return TextEncoder(
        tower or Tower(), cache=EmbeddingCache(folder), **{"templates": ["a {}", "the {}!"], **options}
    )


def test_rows_by_hand():
    made = encoder().classifier(Vocabulary.from_words(["dog", "cat|kitten"]))
    for row, word in zip(made.embeddings, ["dog", "cat", "kitten"], strict=True):
        both = Tower().embed_text([f"a {word}", f"the {word}!"])
        mean = torch.nn.functional.normalize(both, dim=1).mean(0)
        torch.testing.assert_close(row, mean / mean.norm())
    assert made.synonym_counts == (1, 2)
    assert made.names == ("dog", "cat")
    assert made.text_digest == "tower"


def test_the_raw_rule_weighs_by_length():
    made = encoder(rule="raw_mean").embed(["dog"])[0]
    mean = Tower().embed_text(["a dog", "the dog!"]).mean(0)
    torch.testing.assert_close(made, mean / mean.norm())


def test_a_vocabulary_s_own_templates_win():
    tower = Tower()
    encoder(tower=tower).classifier(Vocabulary.from_words(["dog"], templates="none"))
    assert tower.prompts == ["dog"]


def test_permuting_the_vocabulary_permutes_the_rows():
    words = ["a", "b|bb|bbb", "c"]
    rows = encoder().classifier(Vocabulary.from_words(words)).embeddings
    turned = encoder().classifier(Vocabulary.from_words(words[::-1])).embeddings
    assert torch.equal(rows, turned[[4, 1, 2, 3, 0]])


def test_negatives():
    classes = (VocabularyClass(name="a"), VocabularyClass(name="b", negatives=("c", "d")))
    rows, owners = encoder().negatives(Vocabulary(classes=classes))
    assert rows.shape == (2, 16)
    assert owners.tolist() == [1, 1]
    assert encoder().negatives(Vocabulary.from_words(["a"]))[0].shape == (0, 16)


class TestReduce:
    @staticmethod
    def classifier(counts):
        words = ["|".join(f"{i}-{j}" for j in range(n)) for i, n in enumerate(counts)]
        rows = torch.zeros(sum(counts), 4)
        return TextClassifier(embeddings=rows, vocabulary=Vocabulary.from_words(words), text_digest="")

    @pytest.mark.parametrize("counts", [(1,), (1, 1, 1), (3, 1, 2), (1, 5), (2, 2)])
    def test_is_the_best_synonym(self, counts):
        logits = torch.randn(5, 3, sum(counts))
        expected = torch.stack([part.amax(-1) for part in logits.split(list(counts), -1)], -1)
        classifier = self.classifier(counts)
        assert torch.equal(classifier.reduce(logits), expected)
        assert torch.equal(classifier.reduce(logits.movedim(-1, 0), dim=0), expected.movedim(-1, 0))
        assert torch.equal(classifier.reduce(logits[0, 0]), expected[0, 0])

    def test_a_synonym_never_lowers_a_class(self):
        logits = torch.randn(7, 4)
        more = torch.cat([logits, torch.randn(7, 1)], -1)
        assert (
            self.classifier((1, 1, 1, 2)).reduce(more) >= self.classifier((1, 1, 1, 1)).reduce(logits)
        ).all()

    def test_no_synonyms_costs_nothing(self):
        logits = torch.randn(2, 3)
        assert self.classifier((1, 1, 1)).reduce(logits) is logits

    def test_gradient_goes_to_the_best(self):
        logits = torch.tensor([1.0, 3.0, 2.0, 0.0], requires_grad=True)
        self.classifier((3, 1)).reduce(logits).sum().backward()
        assert logits.grad.tolist() == [0, 1, 0, 1]

    def test_infinities_survive(self):
        assert self.classifier((2,)).reduce(torch.tensor([-torch.inf, -torch.inf])).item() == -torch.inf

    def test_misfits_are_refused(self):
        with pytest.raises(InvalidParameter, match="3"):
            self.classifier((2, 1)).reduce(torch.zeros(2, 4))
        with pytest.raises(InvalidParameter):
            TextClassifier(
                embeddings=torch.zeros(2, 3), vocabulary=Vocabulary.from_words(["a"]), text_digest=""
            )


class TestCache:
    words = Vocabulary.from_words(["dog", "cat|kitten"])

    def test_a_second_process_encodes_nothing(self, tmp_path):
        vocabulary = Vocabulary.builtin("lvis_v1_1203")
        first, second = Tower(dim=512), Tower(dim=512)
        made = encoder(tmp_path, tower=first, templates="vild_14").classifier(vocabulary)
        assert len(first.prompts) == len(set(vocabulary.texts)) * 14
        begin = time.process_time()
        again = encoder(tmp_path, tower=second, templates="vild_14").classifier(vocabulary)
        assert time.process_time() - begin < 1
        assert second.prompts == []
        assert torch.equal(made.embeddings, again.embeddings)

    def test_only_new_words_are_encoded(self):
        tower = Tower()
        e = encoder(tower=tower)
        e.classifier(self.words)
        e.classifier(Vocabulary.from_words(["kitten", "cow", "dog"]))
        assert tower.prompts[6:] == ["a cow", "the cow!"]

    def test_a_classifier_is_kept_whole(self):
        e = encoder()
        assert e.classifier(self.words) is e.classifier(Vocabulary.from_words(["dog", "cat|kitten"]))

    def test_classifiers_are_bounded(self):
        e = encoder(max_classifiers=2)
        for word in "abcd":
            e.classifier(Vocabulary.from_words([word]))
        assert len(e._classifiers) == 2

    @pytest.mark.parametrize(
        "other", [{"tower": Tower("another")}, {"templates": ["a {}"]}, {"rule": "raw_mean"}]
    )
    def test_what_an_embedding_depends_on_is_in_its_key(self, tmp_path, other):
        encoder(tmp_path).classifier(self.words)
        fresh = encoder(tmp_path, **{"tower": Tower(), **other})
        fresh.classifier(self.words)
        assert fresh.backbone.prompts

    def test_what_a_failing_device_gave_is_not_kept(self, tmp_path):
        cache = EmbeddingCache(tmp_path)
        cache.put("s", {"a": np.array([1, np.nan], np.float32), "b": np.ones(2, np.float32)})
        assert set(cache.get("s", ["a", "b"])) == {"b"}
        assert set(EmbeddingCache(tmp_path).get("s", ["a", "b"])) == {"b"}

    def test_memory_is_bounded(self):
        cache = EmbeddingCache(max_entries=3, max_bytes=10_000)
        cache.put("s", {str(i): np.ones(4, np.float32) for i in range(5)})
        assert set(cache.get("s", list("01234"))) == {"2", "3", "4"}
        cache = EmbeddingCache(max_bytes=40)
        cache.put("s", {str(i): np.ones(4, np.float32) for i in range(5)})
        assert set(cache.get("s", list("01234"))) == {"3", "4"}

    @pytest.mark.parametrize("damage", ["truncate", "garbage", "empty", "flip"])
    def test_a_damaged_file_is_dropped_and_made_again(self, tmp_path, damage, caplog):
        expected = encoder(tmp_path).classifier(self.words).embeddings
        (path,) = tmp_path.glob("*/*.safetensors")
        content = bytearray(path.read_bytes())
        content[-5] ^= 0xFF
        path.write_bytes(
            {"truncate": content[:-20], "garbage": b"x" * 300, "empty": b"", "flip": bytes(content)}[damage]
        )
        tower = Tower()
        with caplog.at_level(logging.WARNING):
            again = encoder(tmp_path, tower=tower).classifier(self.words).embeddings
        assert torch.equal(again, expected)
        assert tower.prompts
        assert "damaged" in caplog.text
        healed = Tower()
        encoder(tmp_path, tower=healed).classifier(self.words)
        assert not healed.prompts

    def test_an_unwritable_folder_warns_once(self, tmp_path, caplog):
        (tmp_path / "file").write_text("in the way")
        e = encoder(tmp_path / "file")
        with caplog.at_level(logging.WARNING):
            e.classifier(self.words)
            e.classifier(Vocabulary.from_words(["cow"]))
        assert caplog.text.count("not kept on disk") == 1

    def test_a_full_disk_warns_once_and_leaves_nothing(self, tmp_path, caplog, monkeypatch):
        import ovperception.text_cache as module

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module, "save_file", full)
        e = encoder(tmp_path)
        with caplog.at_level(logging.WARNING):
            e.classifier(self.words)
            e.classifier(Vocabulary.from_words(["cow"]))
        assert caplog.text.count("No space left") == 1
        assert not [p for p in tmp_path.rglob("*") if p.is_file()]

    def test_many_small_questions_make_few_files(self, tmp_path):
        e = encoder(tmp_path)
        for i in range(150):
            e.embed([f"word {i}"])
        assert len(list(tmp_path.glob("*/*"))) <= 70
        tower = Tower()
        encoder(tmp_path, tower=tower).embed([f"word {i}" for i in range(150)])
        assert not tower.prompts

    def test_the_disk_is_bounded(self, tmp_path):
        cache = EmbeddingCache(tmp_path, max_disk_bytes=20_000)
        for i in range(40):
            cache.put(f"space{i}", {str(j): np.ones(64, np.float32) for j in range(10)})
        assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) <= 20_000

    def test_what_another_process_removes_is_made_again(self, tmp_path):
        cache, other = EmbeddingCache(tmp_path, max_entries=1), EmbeddingCache(tmp_path)
        cache.put("s", {str(i): np.full(4, i, np.float32) for i in range(5)})
        for path in tmp_path.glob("*/*"):
            path.unlink()
        assert set(cache.get("s", list("01234"))) <= {"4"}
        other.put("s", {"0": np.zeros(4, np.float32)})
        assert "0" in cache.get("s", ["0"])

    def test_threads_share_one_encoding(self, tmp_path):
        tower = Tower()
        e = encoder(tmp_path, tower=tower)
        words = Vocabulary.from_words([f"word {i}" for i in range(50)])
        threads = [threading.Thread(target=e.classifier, args=(words,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(tower.prompts) == 100


_WRITER = """
import sys, pathlib, numpy as np
from ovperception.text_cache import EmbeddingCache
cache = EmbeddingCache(pathlib.Path(sys.argv[1]))
for i in range(int(sys.argv[2]), int(sys.argv[2]) + 40):
    cache.put("s", {f"{j}": np.full(8, j, np.float32) for j in (i, i + 1)})
"""


def test_two_processes_write_side_by_side(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path), start]) for start in ("0", "20")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    found = EmbeddingCache(tmp_path).get("s", [str(i) for i in range(61)])
    assert all((vector == float(word)).all() for word, vector in found.items())
    assert len(found) == 61
