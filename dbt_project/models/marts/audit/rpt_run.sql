{{ config(materialized="view") }}

select
    run_id,
    business_date,
    session,
    status,
    started_at,
    finished_at,
    failure_reason,
    message,
    source_spec,
    code_commit,
    lock_hash,
    parameter_set_id,
    content_hash,
    account_count,
    call_count,
    quarantined_rows,
    superseded_by
from {{ source("audit_views", "runs") }}
