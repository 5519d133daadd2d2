"""People's ratings of captions: a page, sheets, and their store."""
