"""Small needs of all rooms, each once: files, processes that train together, pieces of pages."""
