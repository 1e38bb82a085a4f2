"""Films: what lies between latents, as a GIF that goes round for ever."""

import numpy as np
from PIL import Image

from shared_metrics.files import writing
from shared_metrics.flags import SHEET
from shared_metrics.images import grid

NAME = "film.gif"
STOPS = 10  # latents that a film passes, at the most


def film_flag(add):
    """Add the flag of the film, by a parser's or a group's `add_argument`."""
    add("--film", type=SHEET.or_0, default=0, metavar="FRAMES",
        help=f"also {NAME}: so many pictures on the way from each seed to the next, {STOPS} seeds "
             "at the most, a cell a class; 0: none")  # fmt: skip


def stops(seeds):
    """The seeds whose latents a film passes: STOPS of these at the most, at least two."""
    chosen = np.unique(seeds)[:STOPS]
    return chosen if len(chosen) > 1 else (chosen[0] + np.arange(2)) % 2**32


def between(z, frames):
    """Points on the straight ways from each latent to the next, and from the last to the first.

    Args: z (N, z_dim); frames, points on each way. Returns: (N * frames, z_dim) of z's type.
    """
    steps = np.arange(frames, dtype=z.dtype)[:, None] / z.dtype.type(frames)
    ways = zip(z, np.roll(z, -1, axis=0), strict=True)
    return np.concatenate([(1 - steps) * first + steps * last for first, last in ways])


def film(z, frames, draw, labels):
    """Pictures of a film, uint8 (H, W, 3) each: the classes side by side, all at the same latent.

    Args: z, frames, see `between`; draw, function (z (n, z_dim), labels (n,) or None) -> uint8
        (n, H, W, 3); labels, of the cells, or None for one cell of a G that is told none.
    """
    for point in between(z, frames):
        cells = 1 if labels is None else len(labels)
        images = draw(np.repeat(point[None], cells, axis=0), labels)
        yield grid(images, min(cells, 5))


def save_gif(pictures, path, milliseconds):
    """Write uint8 pictures (H, W, 3), an iterable of at least one, as a GIF that goes round for
    ever.

    Args: milliseconds, how long each is shown. Raises: UserError as `files.writing`.
    """
    frames = []  # each with the palette of 256 colours that a GIF has
    for picture in pictures:
        image = Image.fromarray(picture)
        frames.append(image.convert("P", palette=Image.Palette.ADAPTIVE))
    how = {"format": "GIF", "save_all": True, "append_images": frames[1:]}
    with writing(path) as temporary:
        frames[0].save(temporary, duration=milliseconds, loop=0, **how)


def write_film(args, folder, seeds, latents, draw, labels):
    """Write FOLDER/film.gif where --film asks for it. Args: latents, function seeds -> z; of the
    others see `film`.
    """
    if args.film:
        z = latents(stops(seeds))
        save_gif(film(z, args.film, draw, labels), folder / NAME, milliseconds=60)
