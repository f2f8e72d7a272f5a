"""The quality report: its parts are measured, compared with what is wanted, and written down."""
