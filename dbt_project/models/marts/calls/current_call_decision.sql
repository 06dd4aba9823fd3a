{{ config(materialized="view") }}

select rows_of_runs.*
from {{ ref("fct_call_decision") }} as rows_of_runs
inner join {{ ref("rpt_run") }} as runs on rows_of_runs.run_id = runs.run_id
where runs.status = 'published' and runs.superseded_by is null
