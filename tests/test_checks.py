"""Checks of arguments: what is allowed, and that an error names the argument and the way out."""

import pytest

from gradlab.checks import check_choice, check_int, check_known, did_you_mean, too_large


class OtherError(ValueError):
    pass


@pytest.mark.parametrize("value", [2, 5])
def test_an_int_within_its_bounds_passes(value):
    check_int("m", value, 2, 5)


@pytest.mark.parametrize("value", [1, 6, 2.0, "3", None])
def test_other_values_are_named_with_the_bounds(value):
    with pytest.raises(OtherError, match=r"^m must be an int from 2 to 5, not "):
        check_int("m", value, 2, 5, error=OtherError)


def test_a_truth_value_is_no_number():
    with pytest.raises(ValueError, match=r"^m must be an int of at least 0, not True$"):
        check_int("m", True, 0)


def test_without_a_most_only_the_least_is_named():
    check_int("m", 10**9, 2)
    with pytest.raises(ValueError, match=r"^m must be an int of at least 2, not 1$"):
        check_int("m", 1, 2)


def test_a_choice_is_one_of_the_names():
    check_choice("mode", "eager", ("eager", "graph"))
    with pytest.raises(ValueError, match=r"must be one of eager, graph, not 'eagre'; did you mean"):
        check_choice("mode", "eagre", ("eager", "graph"))


def test_an_unknown_name_is_told_with_the_nearest_and_all():
    check_known("fruit", "pear", ["pear", "apple"])
    message = r"^unknown fruit 'peer'; did you mean 'pear'\? \(known: pear, apple\)$"
    with pytest.raises(ValueError, match=message):
        check_known("fruit", "peer", ["pear", "apple"])
    assert did_you_mean("zzz", ["pear", "apple"]) == ""


def test_what_is_too_large_says_how_large_and_the_way_out():
    assert too_large("the table", 3e9, 1e6) == (
        "the table would hold 3.0e+09 numbers at once (allowed: 1.0e+06)"
    )
    assert too_large("the table", 3e9, 1e6, "take a smaller C").endswith("; take a smaller C")
