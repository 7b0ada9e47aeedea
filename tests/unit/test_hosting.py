"""Settings that cannot work in a pod: too many workers for them, or too little time for the end (N2, N5)."""

import pytest

from app.hosting import DRAIN_MARGIN, check_timeouts, check_workers, graceful_timeout
from app.settings import SettingsError, load


class TestWorkers:
    def test_memory_serves_one_worker(self) -> None:
        check_workers(load(), workers=1)
        with pytest.raises(SettingsError, match="CARILLON_REDIS_URL: memory:// reaches one process only"):
            check_workers(load(), workers=2)

    def test_redis_serves_any_number(self) -> None:
        check_workers(load(redis_url="redis://h"), workers=64)

    def test_nobody_is_served_by_none(self) -> None:
        with pytest.raises(SettingsError, match="WEB_CONCURRENCY"):
            check_workers(load(redis_url="redis://h"), workers=0)


class TestTimeouts:
    """N5: delay and drain, then gunicorn's SIGKILL, then the supervisor's; each later than the one before."""

    def test_gunicorn_is_given_what_the_settings_need(self) -> None:
        assert DRAIN_MARGIN == 5
        assert graceful_timeout(load(drain_delay=3, drain_timeout=20.5)) == 29
        check_timeouts(load(), graceful_timeout(load()))

    def test_a_graceful_timeout_that_cuts_the_drain_off(self) -> None:
        settings = load(drain_delay=5, drain_timeout=20)
        check_timeouts(settings, graceful=30)
        with pytest.raises(SettingsError, match=r"graceful_timeout of 29 s cuts .* are 30 s"):
            check_timeouts(settings, graceful=29)

    @pytest.mark.parametrize("graceful", [25, 40])
    def test_a_grace_that_cuts_it_off(self, graceful: int) -> None:
        """Also where gunicorn's own was made longer."""
        needed = graceful + 1
        check_timeouts(load(drain_timeout=20, termination_grace=needed), graceful)
        with pytest.raises(SettingsError, match=rf"CARILLON_TERMINATION_GRACE: .* a stop may take {needed} s"):
            check_timeouts(load(drain_timeout=20, termination_grace=needed - 0.5), graceful)

    def test_a_grace_that_is_not_known_is_not_checked(self) -> None:
        check_timeouts(load(drain_timeout=3600, termination_grace=0), graceful=3605)

    def test_a_worker_timeout_that_kills_who_only_lags(self) -> None:
        settings = load(max_loop_lag=4)
        check_timeouts(settings, 15, worker_timeout=6)
        check_timeouts(settings, 15, worker_timeout=0)  # gunicorn's word for never
        with pytest.raises(SettingsError, match="timeout of 5 s kills workers that only lag"):
            check_timeouts(settings, 15, worker_timeout=5)

    def test_a_line_for_each(self) -> None:
        with pytest.raises(SettingsError) as refused:
            check_timeouts(load(termination_grace=3), graceful=3, worker_timeout=1)
        assert len(str(refused.value).splitlines()) == 3
