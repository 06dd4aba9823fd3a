{#- USD per unit of a currency or coin: 1 for USD itself, else its index. -#}
{% macro price_in_usd(currency, index_price) -%}
    if({{ currency }} = 'USD', 1.0, {{ index_price }})
{%- endmacro %}
