select *
from {{ source('raw', 'accounts') }}
where run_id = {{ current_run() }}
