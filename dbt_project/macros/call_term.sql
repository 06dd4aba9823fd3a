{#- A term of the call policy in force, in USD or as a share. The connection sets it, from the policy itself; empty where
    the policy switches a criterion off. -#}
{% macro call_term(name) -%}
    getvariable('call_{{ name }}')
{%- endmacro %}

{#- An amount that is not negative, up to the next multiple of the unit. -#}
{% macro rounded_up(amount, unit) -%}
    {{ amount }} + ({{ unit }} - {{ amount }} % {{ unit }}) % {{ unit }}
{%- endmacro %}

{#- An amount that is not negative, down to a multiple of the unit. -#}
{% macro rounded_down(amount, unit) -%}
    {{ amount }} - {{ amount }} % {{ unit }}
{%- endmacro %}

{#- An amount that is not negative, as the policy rounds calls; one that is not rounded can still be paid. -#}
{% macro rounded_call(amount) -%}
    case {{ call_term("rounding_mode") }}
        when 'DRUP' then {{ rounded_up(amount, call_term("rounding_unit")) }}
        when 'DRDW' then {{ rounded_down(amount, call_term("rounding_unit")) }}
        when 'CLSR'
            then
                {{ rounded_down(amount, call_term("rounding_unit")) }}
                + if(
                    2 * ({{ amount }} % {{ call_term("rounding_unit") }}) >= {{ call_term("rounding_unit") }},
                    {{ call_term("rounding_unit") }},
                    0
                )
        when 'NONE' then {{ rounded_up(amount, call_term("payment_unit")) }}
    end
{%- endmacro %}

{#- The unit that releases are rounded down to. -#}
{% macro release_unit() -%}
    if({{ call_term("rounding_mode") }} = 'NONE', {{ call_term("payment_unit") }}, {{ call_term("rounding_unit") }})
{%- endmacro %}
