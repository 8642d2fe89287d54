"""Pure functions: values in, verdict out."""
