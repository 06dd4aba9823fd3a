select *
from {{ source('risk', 'scenarios') }}
where run_id = {{ current_run() }}
