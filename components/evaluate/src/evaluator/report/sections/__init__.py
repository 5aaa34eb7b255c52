"""The sections of the page: what each shows, as plots, tables and sentences, computed from the data."""
