select *
from {{ source('risk', 'position_values') }}
where run_id = {{ current_run() }}
