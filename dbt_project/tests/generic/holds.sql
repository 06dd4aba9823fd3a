{#- A condition holds on every row of the run. -#}
{% test holds(model, condition) %}
    select *
    from {{ model }}
    where run_id = {{ current_run() }} and not coalesce({{ condition }}, false)
{% endtest %}
