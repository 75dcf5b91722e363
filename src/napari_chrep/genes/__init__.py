"""The Genes widget, in which the user finds genes and shows their maps."""
