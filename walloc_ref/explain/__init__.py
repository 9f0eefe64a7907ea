"""The codec at work on one file, as a page to read: what every stage does to it, in figures (`report.explain`)."""
