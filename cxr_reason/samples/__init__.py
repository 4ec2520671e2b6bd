"""Claims drawn for a colleague's eye: the draw, the page to read by, and the files of both."""
