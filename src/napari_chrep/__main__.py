"""Start the viewer: ``python -m napari_chrep [SLIDE] [-b BUNDLE] [--gene NAME]``."""

from chrep_model.processes import leave_out_current_folder

leave_out_current_folder()  # before anything else is imported from there

from napari_chrep.io.launch import main  # noqa: E402

main()
