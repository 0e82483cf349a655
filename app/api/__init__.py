"""HTTP, kept thin: one file for each address, and a folder for each thing that they share."""
