{#- No two rows of the run share the key, and no part of the key is empty. -#}
{% test unique_combination_of_columns(model, combination_of_columns, nullable=[]) %}
    select
        {{ combination_of_columns | join(", ") }},
        count(*) as row_count
    from {{ model }}
    where run_id = {{ current_run() }}
    group by {{ combination_of_columns | join(", ") }}
    having
        count(*) > 1
        {%- for column in combination_of_columns if column not in nullable %}
        or {{ column }} is null
        {%- endfor %}
{% endtest %}
