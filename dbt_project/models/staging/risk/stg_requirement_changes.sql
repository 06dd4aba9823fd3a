select *
from {{ source('risk', 'requirement_changes') }}
where run_id = {{ current_run() }}
