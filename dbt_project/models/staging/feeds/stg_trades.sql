select *
from {{ source('raw', 'trades') }}
where run_id = {{ current_run() }}
