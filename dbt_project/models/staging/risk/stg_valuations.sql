select *
from {{ source('risk', 'valuations') }}
where run_id = {{ current_run() }}
