{#- Schemas are named as they are configured: there is one lake, not one schema for each developer. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name or target.schema }}
{%- endmacro %}
