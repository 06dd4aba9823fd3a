select *
from {{ source('risk', 'risk_arrays') }}
where run_id = {{ current_run() }}
