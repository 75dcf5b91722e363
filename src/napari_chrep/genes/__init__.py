"""The Genes widget: find genes and show their maps."""
