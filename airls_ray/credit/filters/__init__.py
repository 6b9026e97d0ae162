"""Built-in row filters, one file each: a new file here is a new name for `method.row_filters`."""
