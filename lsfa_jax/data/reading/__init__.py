"""Documents from files of any format."""
