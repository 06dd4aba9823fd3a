select *
from {{ source('raw', 'instruments') }}
where run_id = {{ current_run() }}
