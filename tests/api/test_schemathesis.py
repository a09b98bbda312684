"""The OpenAPI document against the running server: generated requests, the right and the wrong ones."""

from __future__ import annotations

import pytest

schemathesis = pytest.importorskip("schemathesis", exc_type=ImportError)

from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance  # noqa: E402

from tests.campaigns.proof import count, record  # noqa: E402
from tests.support.live_server import live_server  # noqa: E402

EXAMPLES = count(1000, 30)


def test_every_answer_is_as_documented(level_model):
    calls = 0
    with live_server([level_model]) as server:
        schema = schemathesis.openapi.from_url(f"{server.http}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) >= 14
        for operation in operations:

            @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy())
            def one(case):
                nonlocal calls
                calls += 1
                case.call_and_validate(
                    checks=[not_a_server_error, status_code_conformance, response_schema_conformance]
                )

            one()
    record("OpenAPI", f"{calls} generated requests", "no server error, no undocumented status or body")
