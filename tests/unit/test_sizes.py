from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polystore.errors import ConfigurationError
from polystore.sizes import UNITS, parse_size


@pytest.mark.parametrize(
    ("size", "size_bytes"),
    [
        (0, 0),
        (2**63, 2**63),
        ("0 B", 0),
        ("500MB", 500_000_000),
        ("1.5 GB", 1_500_000_000),
        ("1GiB", 1_073_741_824),
        ("  1.5\tgib ", 1_610_612_736),
        ("1 mb", 1_000_000),
        ("3KB", 3_000),
        ("3 KiB", 3_072),
        ("2TB", 2_000_000_000_000),
        ("1PiB", 1_125_899_906_842_624),
        ("0.999999999 GB", 999_999_999),
        ("0.9999999999 GB", 999_999_999),  # not rounded up into the gigabyte that it does not reach
        ("999999999999999999 B", 999_999_999_999_999_999),  # exact where a float is not
    ],
)
def test_a_size_is_read_as_a_quantity(size: str | int, size_bytes: int) -> None:
    assert parse_size(size) == size_bytes


def test_sizes_compare_by_amount_where_texts_would_not() -> None:
    assert "9MB" > "10MB"
    assert parse_size("9MB") < parse_size("10MB") < parse_size("1 GB")


@pytest.mark.parametrize(
    "size", ["", "MB", "1,5 GB", "1_000 B", "1e9 B", "GB 1", "1 GB 2", ".5 GB", "١ GB", "9" * 5000]
)
def test_a_text_that_is_no_quantity_is_refused_with_the_units(size: str) -> None:
    with pytest.raises(ConfigurationError, match=r"not a number and a unit.*units: B, kB, MB.*GiB"):
        parse_size(size)


@pytest.mark.parametrize("size", ["1 XB", "5 bytes", "3 G"])
def test_an_unknown_unit_is_refused_with_the_known_ones(size: str) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown unit .*units: B, kB, MB.*PiB"):
        parse_size(size)


def test_a_text_without_unit_is_refused_and_told_how_to_say_bytes() -> None:
    with pytest.raises(ConfigurationError, match="no unit; write '500 B'"):
        parse_size("500")


@pytest.mark.parametrize("size", [-1, "-1 B", "-0.5 GB"])
def test_a_negative_size_is_refused(size: str | int) -> None:
    with pytest.raises(ConfigurationError, match="negative"):
        parse_size(size)


@pytest.mark.parametrize("size", [True, 1.5, None, b"1 GB"])
def test_a_value_of_another_type_is_refused(size: object) -> None:
    with pytest.raises(ConfigurationError, match=f"not {type(size).__name__}"):
        parse_size(size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@given(amount=st.integers(0, 10**18 - 1), unit=st.sampled_from(sorted(UNITS)), space=st.sampled_from(["", " ", "  "]))
def test_case_and_spaces_do_not_change_a_size(amount: int, unit: str, space: str) -> None:
    expected = amount * UNITS[unit]
    assert parse_size(f"{amount}{space}{unit}") == expected
    assert parse_size(f"{space}{amount}{space}{unit.upper()}{space}") == expected
    assert parse_size(f"{amount}{space}{unit.lower()}") == expected
