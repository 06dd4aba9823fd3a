select *
from {{ source('raw', 'positions') }}
where run_id = {{ current_run() }}
