select *
from {{ source('risk', 'account_margin') }}
where run_id = {{ current_run() }}
