{#- The run that this build is for. The connection sets it, so that the parsed project is the same for every run. -#}
{% macro current_run() -%}
    getvariable('run_id')
{%- endmacro %}
