"""The cache of frozen encoders' embeddings on disk."""

from pathlib import Path

import pytest
import torch
from small_tower import SmallEncoder, save_weights, small_encoder

from sgmse.encoders.cache import EmbeddingCache, audio_key


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SGMSE_CACHE", str(folder))
    return folder


def counting(**changes) -> tuple[SmallEncoder, list[int]]:
    """A small encoder in evaluation mode, and how many items each call of its tower had."""
    encoder, items = small_encoder(cross_attention_resolutions=[16], **changes).eval(), []
    encoder.tower.register_forward_hook(lambda module, arguments, output: items.append(len(arguments[0])))
    return encoder, items


def references() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 6000, generator=torch.Generator().manual_seed(1)) * 0.1, torch.tensor([6000, 4000, 0])


def test_a_reference_is_encoded_once_and_by_no_later_process_again(cache):
    encoder, items = counting()
    first = encoder(*references())
    again = encoder(*references())
    later, items_later = counting()
    later.load_state_dict(encoder.state_dict())
    third = later(*references())
    assert items == [3]
    assert items_later == []
    for other in (again, third):
        torch.testing.assert_close(other.vector, first.vector)
        torch.testing.assert_close(other.tokens, first.tokens)
        assert torch.equal(other.mask, first.mask)
    assert len(list(cache.rglob("*.safetensors"))) == 3
    assert [path for path in cache.rglob("*") if path.suffix == ".part"] == []


def test_only_the_missing_items_of_a_batch_are_encoded():
    encoder, items = counting()
    reference, length = references()
    encoder(reference[1:2], length[1:2])
    together = encoder(reference, length)
    assert items == [1, 2]
    fresh = encoder.train()(reference, length)
    torch.testing.assert_close(together.vector, fresh.vector)


def test_the_key_is_the_normalised_content_and_the_rate():
    """Neither the level nor what lies beyond the end is a part of it; one changed sample is."""
    encoder, items = counting()
    reference, length = references()
    loud, quiet = encoder(reference, length).vector, encoder(reference * 0.5, length).vector
    reference[1, 4000:] = 0.3
    encoder(torch.nn.functional.pad(reference, (0, 500)), length)
    assert items == [3]
    assert not torch.allclose(loud, quiet)
    reference[0, 17] += 0.01
    encoder(reference, length)
    assert items == [3, 1]
    assert audio_key(torch.ones(5), 16000) != audio_key(torch.ones(5), 48000)


def test_training_and_an_encoder_that_is_not_frozen_leave_the_cache_alone(cache):
    encoder, items = counting()
    encoder.train()
    free, items_free = counting(freeze_encoder=False)
    for _ in range(2):
        encoder(*references())
        free(*references())
    assert items == items_free == [3, 3]
    assert not cache.exists()


def test_other_weights_are_a_miss(cache, tmp_path):
    for seed in (1, 2):
        save_weights(tmp_path / "w.pt", seed=seed)
        encoder, items = counting(encoder_checkpoint=str(tmp_path / "w.pt"))
        encoder(*references())
        assert items == [3]
    counting()[0](*references())
    folders = sorted(path.name for path in (cache / "embeddings").iterdir())
    assert len(folders) == 3
    assert f"small-{encoder.identity}" in folders
    assert folders[-1].startswith("small-random-")


@pytest.mark.parametrize("damage", ["unreadable", "unwritable"])
def test_a_cache_that_cannot_be_used_costs_time_and_nothing_else(cache, damage):
    """An unreadable entry is a miss and is mended; where nothing can be written nothing is kept."""
    if damage == "unwritable":
        cache.write_text("a file where the folder would be")
    encoder, items = counting()
    encoder(*references())
    for path in cache.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:20])
    encoder(*references())
    assert items == [3, 3]
    encoder(*references())
    assert items == ([3, 3] if damage == "unreadable" else [3, 3, 3])


def test_a_stored_entry_comes_back_bit_for_bit(tmp_path):
    store = EmbeddingCache(tmp_path / "a" / "b")
    entry = {"embedding": torch.randn(4), "frames": torch.randn(2, 6).T}
    assert store.load("key") is None
    store.store("key", entry)
    loaded = store.load("key")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in entry.items())
