"""Not every variant of a test runs on servers, but each test does, and over many tests every variant."""

from itertools import product

from tests.variants import kept

FAMILIES = [f"tests/contract/test_x.py::TestX::test_{i}" for i in range(200)]


def test_each_test_runs_for_one_seed_and_on_half_of_what_there_is() -> None:
    for family in FAMILIES:
        both = [{"seed": seed, "connect": way} for way, seed in product(range(2), range(6))]
        assert sum(kept(family, both)) == 1
        assert sum(kept(family, [{"connect": server} for server in range(5)])) == 2
        assert kept(family, [{"connect": 1}]) == [True], "asked for by its full name"
        assert kept(family, [{"case": 0}, {"case": 1}]) == [True, True], "another case is another test"


def test_every_variant_has_its_turn_and_the_same_one_each_time() -> None:
    given = [{"connect": server} for server in range(5)]
    runs = [kept(family, given) for family in FAMILIES]
    assert runs == [kept(family, given) for family in FAMILIES]
    assert all(20 < sum(run[server] for run in runs) < 140 for server in range(5))
