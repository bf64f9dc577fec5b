from torch.utils.data import DataLoader

from mllm.engine.samplers import EpochSampler, LengthGroupedSampler


def test_every_index_once_an_epoch_and_another_order_each():
    sampler = EpochSampler(10, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(index for _, index in first) == sorted(index for _, index in second) == list(range(10))
    assert {epoch for epoch, _ in first} == {0}
    assert {epoch for epoch, _ in second} == {1}
    assert [index for _, index in first] != [index for _, index in second]


def test_the_order_is_a_function_of_seed_and_epoch():
    assert EpochSampler(20, seed=1).order(4) == EpochSampler(20, seed=1).order(4)
    assert EpochSampler(20, seed=1).order(0) != EpochSampler(20, seed=0).order(1)


class _Echo:
    def __len__(self):
        return 8

    def __getitem__(self, key):
        return key


def test_workers_that_live_through_all_epochs_hear_of_each():
    sampler = EpochSampler(8, seed=0)
    loader = DataLoader(_Echo(), batch_size=4, sampler=sampler, num_workers=1, persistent_workers=True, collate_fn=list)
    seen = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        seen.append({key[0] for batch in loader for key in batch})
    assert seen == [{0}, {1}, {2}]


def test_grouping_puts_like_lengths_together_and_loses_nothing():
    hints = [((index * 37) % 100, index % 2) for index in range(64)]
    sampler = LengthGroupedSampler(hints, 8, seed=0)
    order = sampler.order(0)
    assert sorted(order) == list(range(64))
    spread = [
        max(hints[i][0] for i in order[s : s + 8]) - min(hints[i][0] for i in order[s : s + 8]) for s in range(0, 64, 8)
    ]
    assert max(spread) < 30  # 64 lengths over 0..99: eight neighbours span about 12
    assert hints[order[0]][0] == max(length for length, _ in hints)


def test_grouping_by_modality_never_mixes_within_a_batch():
    hints = [(index % 13, int(index % 3 > 0)) for index in range(48)]
    order = LengthGroupedSampler(hints, 4, seed=1, modality=True).order(2)
    assert sorted(order) == list(range(48))
    for start in range(0, 48, 4):
        assert len({hints[i][1] for i in order[start : start + 4]}) == 1
