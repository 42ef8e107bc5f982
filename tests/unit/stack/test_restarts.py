from orchestrator.stack.restarts import RestartPolicy

POLICY = RestartPolicy(most_deaths=3, window_seconds=60, first_delay_seconds=0.5, longest_delay_seconds=1.5)


def test_each_death_within_the_window_doubles_the_delay_up_to_a_bound() -> None:
    deaths = [10.0, 11.0, 12.0]
    assert [POLICY.decide_delay(deaths[:count], now=12.0) for count in (1, 2, 3)] == [0.5, 1.0, 1.5]


def test_one_death_too_many_within_the_window_gives_up() -> None:
    assert POLICY.decide_delay([10.0, 11.0, 12.0, 13.0], now=13.0) is None


def test_deaths_long_ago_are_forgiven() -> None:
    assert POLICY.decide_delay([10.0, 11.0, 12.0, 80.0], now=80.0) == 0.5
