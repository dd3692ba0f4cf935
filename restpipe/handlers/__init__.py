"""Event handlers: from verb and noun to a method, from arguments and results to what travels."""
