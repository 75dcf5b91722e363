"""``python -m napari_chrep [SLIDE] [-b BUNDLE] [--gene NAME]``."""

from napari_chrep.launch import main

main()
