select *
from {{ source('risk', 'call_decisions') }}
where run_id = {{ current_run() }}
