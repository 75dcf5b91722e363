"""What is kept for a user from one start of napari to the next: favourite and recent genes."""

from __future__ import annotations

from qtpy.QtCore import QSettings

#: So many recent genes are kept.
RECENT = 5


class Remembered:
    """Favourite and recent genes, by name, in Qt's settings of this user."""

    def __init__(self) -> None:
        self._settings = QSettings(
            QSettings.Format.IniFormat, QSettings.Scope.UserScope, "napari-chrep", "genes"
        )

    @property
    def favourites(self) -> list[str]:
        """Favourites in the order they were marked."""
        return self._read("favourites")

    @property
    def recent(self) -> list[str]:
        """The last genes on show, the newest first."""
        return self._read("recent")

    def toggle_favourite(self, name: str) -> None:
        """Mark a gene as favourite, or no more."""
        former = self.favourites
        self._write("favourites", [n for n in former if n != name] if name in former else [*former, name])

    def visit(self, name: str) -> None:
        """Take note that a gene was shown."""
        self._write("recent", [name, *(other for other in self.recent if other != name)][:RECENT])

    # One text rather than a list: an ini file cannot tell a list of one name from a name.

    def _read(self, key: str) -> list[str]:
        return str(self._settings.value(key, "")).splitlines()

    def _write(self, key: str, names: list[str]) -> None:
        self._settings.setValue(key, "\n".join(names))
