select *
from {{ source('risk', 'requirements') }}
where run_id = {{ current_run() }}
