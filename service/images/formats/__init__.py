"""Image files of every format: their headers, their samples, their pages and their colours."""
