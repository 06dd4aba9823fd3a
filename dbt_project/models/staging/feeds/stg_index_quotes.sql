select *
from {{ source('raw', 'index_quotes') }}
where run_id = {{ current_run() }}
