{#- Every value of the run's rows exists in another relation of the same run. -#}
{% test found_in(model, column_name, to, field) %}
    select distinct child.{{ column_name }}
    from {{ model }} as child
    left join {{ to }} as parent
        on child.{{ column_name }} = parent.{{ field }} and child.run_id = parent.run_id
    where child.run_id = {{ current_run() }} and parent.{{ field }} is null and child.{{ column_name }} is not null
{% endtest %}
