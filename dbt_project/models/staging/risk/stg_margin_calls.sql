select *
from {{ source('risk', 'margin_calls') }}
where run_id = {{ current_run() }}
