"""Log records: their fields, format, files and handlers. Empty on purpose: config reads the settings alone."""
