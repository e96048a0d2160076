"""JSON Schemas of the API's answers, written by hand from the example outputs of the site's document.

Field names, nesting and types are those of the examples. A field may be null only where its value can be unknown.
Fields beyond the examples' are allowed only in the objects that are marked ``extended``: there citadel tells an
operator more, as ``docs/api.md`` documents.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
ANY_TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
RANK: Schema = {"type": "integer", "minimum": 1}
NUMBER: Schema = {"type": "number", "minimum": 0}
PERCENT: Schema = {"type": "number", "minimum": 0, "maximum": 100}
NAMES: Schema = {"type": "array", "items": TEXT}
INSTANT: Schema = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
STATUS: Schema = {
    "enum": ["healthy", "degraded", "unhealthy", "starting", "stopped", "failed", "unknown", "held"],
}


def or_null(schema: Schema) -> Schema:
    """What is null as long as it is not known."""
    return {"anyOf": [schema, {"type": "null"}]}


def exactly(**properties: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def extended(**properties: Schema) -> Schema:
    """An object with at least these fields."""
    return {**exactly(**properties), "additionalProperties": True}


def list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


STATUS_ANSWER = exactly(
    orchestrator_status=extended(
        status={"enum": ["operational", "degraded", "leaderless"]},
        uptime_seconds=or_null(NUMBER),
        managed_services=COUNT,
        healthy_services=COUNT,
        unhealthy_services=COUNT,
        startup_time_seconds=or_null(NUMBER),
        last_health_check=INSTANT,
    ),
    system_health=exactly(
        overall_status=STATUS,
        critical_services_healthy=FLAG,
        non_critical_services_healthy=FLAG,
        health_score=or_null(PERCENT),
    ),
)

SERVICES_ANSWER = exactly(
    services=list_of(
        extended(
            name=TEXT,
            type=TEXT,
            status=STATUS,
            endpoint=or_null(TEXT),
            health_endpoint=or_null(TEXT),
            dependencies=NAMES,
            dependents=NAMES,
            startup_order=RANK,
            shutdown_order=RANK,
            critical=FLAG,
        )
    )
)

HEALTH_ANSWER = exactly(
    health_summary=exactly(
        overall_status=STATUS,
        timestamp=INSTANT,
        health_score=or_null(PERCENT),
        critical_services_healthy=FLAG,
    ),
    service_health={
        "type": "object",
        # The examples themselves have more fields for some services (gpu_utilization, queue_size, …).
        "additionalProperties": extended(
            status=STATUS,
            response_time_ms=or_null(NUMBER),
            last_check=or_null(INSTANT),
            uptime_seconds=or_null(NUMBER),
            health_score=or_null(PERCENT),
        ),
    },
)

_SEQUENCE = list_of(exactly(order=RANK, services={**NAMES, "minItems": 1}, parallel=FLAG))


def _results(*words: str) -> Schema:
    return list_of(extended(service=TEXT, status={"enum": list(words)}, time_seconds=or_null(NUMBER)))


STARTUP_ANSWER = exactly(
    startup_result=extended(
        operation={"const": "startup"},
        services_requested=NAMES,
        total_services=COUNT,
        startup_sequence=_SEQUENCE,
        execution_results=_results("started", "already_running", "failed", "skipped", "rolled_back"),
        total_startup_time_seconds=or_null(NUMBER),
        success_rate=or_null(PERCENT),
        failed_services=NAMES,
        warnings=NAMES,
    )
)

# The document gives no example of these two; they are in the spirit of its startup_result.
SHUTDOWN_ANSWER = exactly(
    shutdown_result=extended(
        operation={"const": "shutdown"},
        services_requested=NAMES,
        total_services=COUNT,
        shutdown_sequence=_SEQUENCE,
        execution_results=_results("stopped", "not_running", "failed", "skipped"),
        total_shutdown_time_seconds=or_null(NUMBER),
        success_rate=or_null(PERCENT),
        failed_services=NAMES,
        warnings=NAMES,
    )
)
RESTART_ANSWER = exactly(
    restart_result=extended(
        operation={"const": "restart"},
        services_requested=NAMES,
        total_services=COUNT,
        execution_results=_results("restarted", "notified", "failed", "skipped"),
        total_restart_time_seconds=or_null(NUMBER),
        success_rate=or_null(PERCENT),
        failed_services=NAMES,
        warnings=NAMES,
    )
)

DEPENDENCY_ANSWER = exactly(
    dependency_graph=extended(
        nodes=list_of(exactly(id=TEXT, type=TEXT, critical=FLAG)),
        edges=list_of(extended(**{"from": TEXT, "to": TEXT, "type": {"const": "dependency"}})),
        startup_order=list_of(RANK),
        shutdown_order=list_of(RANK),
        critical_path=NAMES,
    )
)

_RECOVERY_STEP_NAMES = ("stop_service", "check_dependencies", "restart_service", "verify_health", "notify_dependents")
RECOVERY_ANSWER = exactly(
    recovery_result=extended(
        service=TEXT,
        recovery_triggered=INSTANT,
        recovery_reason=TEXT,
        recovery_steps={
            "type": "array",
            "prefixItems": [
                exactly(
                    step={"const": name},
                    status={"enum": ["completed", "failed", "skipped"]},
                    time_seconds=or_null(NUMBER),
                )
                for name in _RECOVERY_STEP_NAMES
            ],
            "minItems": 5,
            "maxItems": 5,
        },
        total_recovery_time_seconds=or_null(NUMBER),
        recovery_successful=FLAG,
        post_recovery_health=STATUS,
        affected_services=NAMES,
        dependent_services_restarted=COUNT,
    )
)

METRICS_ANSWER = exactly(
    orchestration_metrics=exactly(
        system_uptime=exactly(
            total_uptime_seconds=or_null(NUMBER),
            availability_percentage=or_null(PERCENT),
            planned_downtime_seconds=or_null(NUMBER),
            unplanned_downtime_seconds=or_null(NUMBER),
        ),
        service_reliability=exactly(
            average_uptime_percentage=or_null(PERCENT),
            most_reliable_service=or_null(TEXT),
            least_reliable_service=or_null(TEXT),
            total_service_restarts=COUNT,
            successful_recoveries=COUNT,
            failed_recoveries=COUNT,
        ),
        startup_performance=exactly(
            average_startup_time_seconds=or_null(NUMBER),
            fastest_startup_seconds=or_null(NUMBER),
            slowest_startup_seconds=or_null(NUMBER),
            startup_success_rate=or_null(PERCENT),
        ),
        health_monitoring=exactly(
            total_health_checks=or_null(COUNT),
            failed_health_checks=or_null(COUNT),
            health_check_success_rate=or_null(PERCENT),
            average_health_check_time_ms=or_null(NUMBER),
        ),
    )
)

PROBLEM = extended(
    type={"type": "string", "pattern": "^(/docs#[a-z-]+|about:blank)$"},
    title=TEXT,
    status={"type": "integer", "minimum": 400, "maximum": 599},
    detail=ANY_TEXT,
    instance={"type": "string", "pattern": "^/"},
)
