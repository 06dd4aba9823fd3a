select *
from {{ source('raw', 'quarantine') }}
where run_id = {{ current_run() }}
