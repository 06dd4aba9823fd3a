select *
from {{ source('risk', 'requirement_shares') }}
where run_id = {{ current_run() }}
