"""The hall and the doors: the graphs, the command line, and what connects them to the world."""
