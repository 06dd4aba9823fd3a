select *
from {{ source('risk', 'requirement_components') }}
where run_id = {{ current_run() }}
