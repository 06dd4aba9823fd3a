select *
from {{ source('raw', 'members') }}
where run_id = {{ current_run() }}
