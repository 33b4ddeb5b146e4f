"""Tests on a real engine with the real ssh."""

import pytest

pytest.register_assert_rewrite("tests.integration.harness")
