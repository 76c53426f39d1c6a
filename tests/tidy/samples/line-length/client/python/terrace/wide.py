"""A line that does not fit, which is this one: it goes on, and on, until it has more than a hundred columns."""
