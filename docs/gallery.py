"""Pictures of the gallery, from the stored outputs of the tutorials: ``python docs/gallery.py``."""

import base64
import io
import sys
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image, ImageChops

HERE = Path(__file__).parent
TUTORIALS = HERE.parent / "tutorials"
SIZE = (800, 500)
BORDER = 16  # pixels

# Of each tutorial: which output image, and which part of it (left, top, right, bottom, as shares of the image).
WHOLE = (0, 0, 1, 1)
PICTURES = {
    "quickstart": (1, (0, 0, 0.3, 1)),
    "pbmc-clusters": (3, WHOLE),
    "pca-to-vae": (2, WHOLE),
    "mnist-four-models": (2, WHOLE),
    "integration": (0, WHOLE),
    "new-cells": (0, (0, 0.34, 1, 0.68)),
    "perturbation": (1, WHOLE),
    "large-data": (0, (0, 0, 0.338, 0.498)),
}


def images(path: Path) -> list[Image.Image]:
    """Output images of a notebook on white, in their order."""
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if data := output.get("data", {}).get("image/png"):
                drawn = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA")
                found.append(Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB"))
    return found


def part_of(image: Image.Image, shares: tuple[float, float, float, float]) -> Image.Image:
    """Part of an image, without its white margins. The sides that are inside the image must be white."""
    left, top, right, bottom = (round(s * n) for s, n in zip(shares, image.size * 2, strict=True))
    part = image.crop((left, top, right, bottom))
    pixels = np.asarray(part)
    sides = {"left": pixels[:, 0], "top": pixels[0], "right": pixels[:, -1], "bottom": pixels[-1]}
    inside = {"left": left > 0, "top": top > 0, "right": right < image.width, "bottom": bottom < image.height}
    for side, colours in sides.items():
        if inside[side] and (colours < 250).any():
            raise ValueError(f"The {side} side of the part cuts what is drawn.")
    return part.crop(ImageChops.difference(part, Image.new("RGB", part.size, "white")).getbbox())


def padded(image: Image.Image) -> Image.Image:
    """An image in the middle of a white one of SIZE, as large as fits."""
    room = [n - 2 * BORDER for n in SIZE]
    scale = min(r / n for r, n in zip(room, image.size, strict=True))
    image = image.resize([max(round(n * scale), 1) for n in image.size], Image.Resampling.LANCZOS)
    page = Image.new("RGB", SIZE, "white")
    page.paste(image, tuple((n - m) // 2 for n, m in zip(SIZE, image.size, strict=True)))
    return page


def main() -> None:
    """Write the picture of each tutorial."""
    if names := {path.stem for path in TUTORIALS.glob("*.ipynb")} ^ set(PICTURES):
        sys.exit(f"Tutorials and pictures differ: {sorted(names)}")
    for name, (number, shares) in PICTURES.items():
        picture = padded(part_of(images(TUTORIALS / f"{name}.ipynb")[number], shares))
        picture.quantize(256, dither=Image.Dither.NONE).save(HERE / f"_static/gallery/{name}.png", optimize=True)


if __name__ == "__main__":
    main()
