SCHEMAS: dict[str, str]
