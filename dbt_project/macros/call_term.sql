{#- A term of the call policy in force, in USD. The connection sets it, from the policy itself. -#}
{% macro call_term(name) -%}
    getvariable('call_{{ name }}')
{%- endmacro %}

{#- An amount that is not negative, up to the next multiple of the unit. -#}
{% macro rounded_up(amount, unit) -%}
    {{ amount }} + ({{ unit }} - {{ amount }} % {{ unit }}) % {{ unit }}
{%- endmacro %}
