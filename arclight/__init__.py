"""The engine-free core: values, formulas and files."""
