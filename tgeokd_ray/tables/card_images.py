"""Tables of images: which formats hold them, the columns and label values that a format has, and what a card must say.

Nothing here reads data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tgeokd_ray.tables.validation import did_you_mean

PIXELS = "pixels"


@dataclass(frozen=True)
class ImageKind:
    """A format whose rows are images: channels, height and width of one, and how many values each label column has, in
    the order of the columns. A row's label, less the `first` one, is the place of its class in the card's `classes`.
    Files end in `suffix`; there are none where the rows come with a package.
    """

    channels: int
    height: int
    width: int
    labels: Mapping[str, int]
    suffix: str = ""
    first: int = 0

    @property
    def num_pixels(self) -> int:
        """Values of one image, channel by channel, row by row."""
        return self.channels * self.height * self.width

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row."""
        return (*self.labels, PIXELS)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in a binary file: one for each label, one for each value."""
        return len(self.labels) + self.num_pixels


IMAGES: Mapping[str, ImageKind] = {
    "cifar10": ImageKind(3, 32, 32, {"label": 10}, ".bin"),
    "cifar100": ImageKind(3, 32, 32, {"coarse": 20, "fine": 100}, ".bin"),
    "digits": ImageKind(1, 8, 8, {"label": 10}),
    **{f"imagenet{side}": ImageKind(3, side, side, {"label": 1000}, ".npz", first=1) for side in (16, 32, 64)},
}


def image_problems(
    kind: str,
    *,
    image: str | None,
    label: str,
    classes: Sequence[str],
    mapped: bool,
    others: Mapping[str, str | None],
    splitting: Sequence[str],
) -> list[str]:
    """What of a card does not fit its format: an image without a format that has some, and the other way round; a label
    column that is not there, or of another number of classes; roles that no column of such a file can have."""
    if kind not in IMAGES:
        kinds = ", ".join(IMAGES)
        return [] if image is None else [f"columns.image: kind {kind} has no images; the formats that have: {kinds}"]
    form = IMAGES[kind]
    found = [] if image == PIXELS else [f"kind {kind} needs columns: {{image: {PIXELS}}}"]
    found += [f"kind {kind} takes no {key}, got {name!r}" for key, name in others.items() if name is not None]
    found += [f"splits: kind {kind} has no column {name!r}; split by hash or by file" for name in splitting]
    if label not in form.labels:
        names = " or ".join(form.labels)
        return [*found, f"label.column: kind {kind} has {names}, got {label!r}{did_you_mean(label, form.labels)}"]
    if len(classes) != form.labels[label]:
        found.append(f"label.classes: {label} of kind {kind} has {form.labels[label]}, got {len(classes)}")
    return found + ([f"label.mapping: kind {kind} takes none: classes stand in the order of the labels"] * mapped)
