select *
from {{ source('raw', 'market_prices') }}
where run_id = {{ current_run() }}
